"""The page of one or several runs, with its pictures as files and for TensorBoard."""

from __future__ import annotations

import datetime
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lska_jax.analysis.run_report import pictures as drawing
from lska_jax.analysis.run_report.history import History, read_history
from lska_jax.analysis.run_report.outcomes import (
    Outcomes,
    find_outcomes,
    is_classification,
    see_batch,
)
from lska_jax.robustness.report.drawing import Picture, styles
from lska_jax.robustness.report.html_page import document, figures, pairs, plain_table, text
from lska_jax.running.whole_file import check_writable, write_whole
from lska_jax.training.metric_writers import flatten
from lska_jax.training.recorded_config import config_of_run

PAGE = "report.html"
DEFAULT_FOLDER = "report"
_TENSORBOARD = "tensorboard"
_MOST_CONFUSED = 10
_PERCENTAGES = ("eval/top1", "eval/top5")


def report_runs(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    title: str | None = None,
    use_images: bool = True,
    report: Callable[[str], None] = print,
) -> Path:
    """Write one page about runs, with the pictures in it, each picture as a file, and tables.

    Classification runs whose data is here are evaluated image by image at their best step, and a
    training batch is made again. Where a run writes for TensorBoard, its pictures are put there
    too, as the run ``report``, in place of those of an earlier report.

    Args:
      runs: their folders.
      out: folder to write; None is ``report`` in the only run's own.
      title: of the page; None names the runs.
      use_images: evaluate; otherwise the page has what the folders hold.
      report: receives what is going on, one line each.

    Returns:
      The path of ``report.html``.

    Raises:
      FileNotFoundError: a folder is no run.
      ValueError: two runs of one name, or several and no ``out``.
    """
    histories = [read_history(run) for run in runs]
    names = [history.name for history in histories]
    if len(set(names)) < len(names):
        raise ValueError(f"Runs are told apart by their folders' names, and these are {names}.")
    if out is None and len(histories) > 1:
        raise ValueError("Several runs need --out DIR; that of one may be left out.")
    folder = Path(out) if out is not None else histories[0].folder / DEFAULT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # Before the work, which may take minutes: a place that cannot be written costs none.
    check_writable(folder / PAGE)
    looks = styles(names)
    shared = drawing.curves(histories, looks)
    sections = [
        ("summary", "Summary", _summary(histories)),
        ("curves", "Curves", figures([shared] if shared else [])),
    ]
    written = [shared] if shared else []
    for history in histories:
        own, remarks, content = _own_pictures(history, use_images=use_images, report=report)
        written += own
        heading = "What it gets wrong, and what it saw" if len(histories) == 1 else history.name
        notes = "".join(f'<p class="soft">{text(remark)}</p>' for remark in remarks)
        sections.append((f"run-{names.index(history.name)}", heading, notes + content))
        curve = drawing.curves([history], looks)
        _write_for_tensorboard(history, [*([curve] if curve else []), *own])
    sections += [
        ("config", "Config", _configs(histories)),
        ("environment", "Environment", _environments(histories)),
    ]
    said = {"Written": datetime.datetime.now(datetime.UTC).isoformat(" ", timespec="minutes")}
    page = document(title or f"Training: {', '.join(names)}", sections, head=pairs(said))
    for picture in written:
        write_whole(folder / f"{picture.name}.png", picture.png)
    write_whole(folder / PAGE, page)
    return folder / PAGE


def _own_pictures(
    history: History, *, use_images: bool, report: Callable[[str], None]
) -> tuple[list[Picture], list[str], str]:
    """Return a run's pictures, what to say of what is missing, and the HTML of both."""
    if not use_images:
        return [], ["Images were not asked for."], ""
    try:
        if not is_classification(config_of_run(history.folder)):
            remark = "Images are shown of classification, one label each; this task is another."
            return [], [remark], ""
        outcomes = find_outcomes(history.folder, report=report)
        seen = see_batch(history.folder, class_names=outcomes.class_names)
    except (OSError, ValueError, ImportError) as error:
        report(f"{history.name}: no images: {error}")
        return [], [f"Images cannot be shown: {error}"], ""
    found = [
        drawing.confusion(outcomes, run=history.name),
        drawing.classes(outcomes, run=history.name),
        drawing.mistakes(outcomes, run=history.name),
        drawing.batch(seen, outcomes.class_names, run=history.name),
    ]
    own = [picture for picture in found if picture]
    return (
        own,
        [],
        "".join(
            (
                figures(own[:1]),
                _confused(outcomes),
                figures(own[1:-1]),
                _places(outcomes),
                figures(own[-1:]),
            )
        ),
    )


def _summary(histories: Sequence[History]) -> str:
    """Return a table: what each run reached, and how fast."""
    metrics = list(
        dict.fromkeys(name for run in histories for name in run.curves if name.startswith("eval/"))
    )
    rows = []
    for run in histories:
        cells = [f'<td class="name">{text(run.name)}</td>']
        steps = [int(curve.steps[-1]) for curve in run.curves.values() if len(curve.steps)]
        cells.append(f"<td>{max(steps, default=0):,}</td>")
        for name in metrics:
            cells.append(f"<td>{_last_and_best(run, name)}</td>")
        speed = run.curves.get("train/images_per_second")
        middle = f"{np.nanmedian(speed.values):,.0f}" if speed and len(speed.values) else ""
        cells += [f"<td>{middle}</td>", f"<td>{text(run.config.get('task', ''))}</td>"]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    heads = ["Run", "Steps", *metrics, "Images/s (median)", "Task"]
    words = '<p class="soft">Metrics: the last evaluation, and the best one with its step.</p>'
    return words + plain_table(heads, rows) + _damage(histories)


def _last_and_best(run: History, name: str) -> str:
    curve = run.curves.get(name)
    if curve is None or not np.isfinite(curve.values).any():
        return ""
    is_loss = name.endswith("loss")
    pick = np.nanargmin if is_loss else np.nanargmax
    best = int(pick(curve.values))

    def shown(value: float) -> str:
        return f"{100 * value:.2f} %" if name in _PERCENTAGES else f"{value:.4f}"

    return f"{shown(curve.values[-1])} (best {shown(curve.values[best])}, {curve.steps[best]:,})"


def _damage(histories: Sequence[History]) -> str:
    return "".join(
        f"<p>{text(run.name)}: {run.damaged} lines of the metrics are damaged and left out.</p>"
        for run in histories
        if run.damaged
    )


def _confused(outcomes: Outcomes) -> str:
    """Return a table of the pairs of classes that are taken for each other most often."""
    counts = outcomes.confusion.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MOST_CONFUSED]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        if not counts[true, predicted]:
            break
        share = counts[true, predicted] / max(outcomes.confusion[true].sum(), 1)
        names = (outcomes.class_names[true], outcomes.class_names[predicted])
        words = "".join(f"<td>{text(name)}</td>" for name in names)
        rows.append(f"<tr>{words}<td>{counts[true, predicted]}</td><td>{share:.1%}</td></tr>")
    if not rows:
        return "<p>No example is named wrong.</p>"
    return "<h3>Most often confused</h3>" + plain_table(
        ("Is", "Named", "Examples", "Share of the class"), rows
    )


def _places(outcomes: Outcomes) -> str:
    """Return where the images of the mistakes are."""
    rows = [
        f'<tr><td>{number}</td><td class="long">{text(one.place)}</td></tr>'
        for number, one in enumerate(outcomes.mistakes, 1)
    ]
    if not rows:
        return ""
    table = plain_table(("", "Image"), rows)
    return f"<details><summary>Where the wrong images are, row by row</summary>{table}</details>"


def _configs(histories: Sequence[History]) -> str:
    """Return a table of all settings; those in which the runs differ come first."""
    flat: list[Mapping[str, Any]] = [flatten(run.config) for run in histories]
    names = list(dict.fromkeys(name for config in flat for name in config))
    differing = [n for n in names if len({str(config.get(n)) for config in flat}) > 1]

    def table(chosen: Sequence[str]) -> str:
        rows = [
            f'<tr><td class="hash">{text(name)}</td>'
            + "".join(f'<td class="long">{text(config.get(name, ""))}</td>' for config in flat)
            + "</tr>"
            for name in chosen
        ]
        return plain_table(("Setting", *(run.name for run in histories)), rows)

    if not names:
        return "<p>The folders hold no config.</p>"
    parts = [f"<h3>What differs</h3>{table(differing)}"] if differing else []
    same = [name for name in names if name not in differing]
    parts.append(f"<details><summary>All {len(names)} settings</summary>{table(same)}</details>")
    return "".join(parts)


def _environments(histories: Sequence[History]) -> str:
    names = list(dict.fromkeys(name for run in histories for name in run.environment))
    if not names:
        return "<p>The runs are of a version that did not record it.</p>"
    rows = [
        f"<tr><td>{text(name)}</td>"
        + "".join(
            f'<td class="long">{text(run.environment.get(name, ""))}</td>' for run in histories
        )
        + "</tr>"
        for name in names
    ]
    return plain_table(("At the last start", *(run.name for run in histories)), rows)


def _write_for_tensorboard(history: History, shown: Sequence[Picture]) -> None:
    """Put pictures beside a run's event files, in place of those of an earlier report."""
    events = history.folder / _TENSORBOARD
    if not events.is_dir():
        return
    from tensorboardX import SummaryWriter

    shutil.rmtree(events / "report", ignore_errors=True)
    steps = [int(curve.steps[-1]) for curve in history.curves.values() if len(curve.steps)]
    writer = SummaryWriter(str(events / "report"))
    for picture in shown:
        pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
        tag = picture.name.removeprefix(f"{history.name}.")
        writer.add_image(f"report/{tag}", pixels, max(steps, default=0), dataformats="HWC")
    writer.close()
