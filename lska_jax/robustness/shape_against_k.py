"""Shape bias, corruption error and accuracy against k: the paper's claim as a figure.

``python -m lska_jax.robustness.shape_against_k RESULTS_FILE... --out DIR`` draws it of the models
in results files. The paper (Lau, Po and Rehman, arXiv 2309.01439) argues that LSKA sees more shape
and less texture as k grows; whether that holds for the models at hand is what the figure shows.
"""

import csv
import io
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.robustness.cells import StampedScore, Summary
from lska_jax.robustness.report import drawing
from lska_jax.robustness.report.command import build_parser, load_all, run
from lska_jax.robustness.report.files import write_whole
from lska_jax.robustness.report.names import Key, clean_set, set_title
from lska_jax.robustness.report.readings import (
    WORDS,
    Reading,
    all_keys,
    all_sets,
    check_summaries,
    provenances,
    read,
)
from lska_jax.robustness.report.results_table import guarded
from lska_jax.robustness.scores import score_facts

NAME = "shape_against_k"
CSV_COLUMNS = (
    "model",
    "sha256",
    "attention",
    "k",
    "key",
    "value",
    "low",
    "high",
    "provenance",
    "num_images",
    "note",
    "state",
)

_SHAPE_BIAS = Key("cue_conflict", "shape_bias")
_MCE = ("mce_15", "mce_19")
_MEAN_ERRORS = ("mean_error", "mean_error_19")
_ATTENTIONS = {
    "lska": "LSKA",
    "lka": "LKA",
    "lska_trivial": "LSKA-trivial",
    "lka_trivial": "LKA-trivial",
}
_LSKA = "lska"
# How far points of one k stand apart, as a share of the range of k.
_STEP = 0.045


class Measured(NamedTuple):
    """A model with known k, and what it scored."""

    summary: Summary
    k: int
    attention: str


def shape_against_k(summaries: Sequence[Summary], folder: str | Path) -> Path:
    """Draw shape bias, corruption error and clean accuracy against k; write the numbers beside it.

    The middle panel is mCE where AlexNet's errors apply, else the mean error over a set's
    corruptions, and says which. Models of one attention and k, for example several seeds, are
    single points, and their mean is a point of its own on the line. Points of one k stand a little
    beside each other. A panel holds numbers of one provenance only.

    Args:
      summaries: one for each model; ``ModelStamp.facts`` has to hold "k" and should hold
        "attention".
      folder: where ``shape_against_k.png`` and ``shape_against_k.csv`` go.

    Returns:
      The path of the picture.

    Raises:
      ValueError: as ``readings.check_summaries``; no model has a usable k.
    """
    check_summaries(summaries)
    models = _with_k(summaries)
    if not models:
        raise ValueError(
            "No model says its kernel size k, so there is nothing to draw against it: the facts of "
            "a model in a results file need a whole number 'k' and an 'attention'."
        )
    keys = panel_keys([model.summary for model in models])
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / f"{NAME}.csv", numbers_csv(models, keys))
    path = out / f"{NAME}.png"
    without_k = [one.model.name for one in summaries if _whole_k(one.model.facts) is None]
    write_whole(path, draw(models, keys, without_k=without_k))
    return path


def panel_keys(summaries: Sequence[Summary]) -> tuple[Key, Key, Key]:
    """Return the scores of the three panels: shape bias, corruption error, clean accuracy.

    Where nothing was measured, they are those that the paper would have.
    """
    keys = all_keys(summaries)
    whole = [key for key in keys if not key.part]
    sets = all_sets(summaries)
    corruption = next(
        (
            key
            for score in (*_MCE, *_MEAN_ERRORS)
            for name in sets
            for key in whole
            if (key.set, key.score) == (name, score)
        ),
        Key("imagenet_c", _MCE[0]),
    )
    clean = clean_set(corruption.set, keys)
    if clean is None:
        clean = next((key.set for key in whole if key.score == "top1"), "imagenet")
    return _SHAPE_BIAS, corruption, Key(clean, "top1")


def numbers_csv(models: Sequence[Measured], keys: Sequence[Key]) -> str:
    """Return the numbers of the figure, one line for each model and panel; fractions."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for model in models:
        stamp = model.summary.model
        for key in keys:
            reading = read(model.summary, key)
            row: dict[str, Any] = {
                "model": stamp.name,
                "sha256": stamp.sha256,
                "attention": model.attention,
                "k": model.k,
                "key": str(key),
                "state": reading.state,
            }
            if reading.stamped:
                row |= {
                    **reading.stamped.score._asdict(),
                    "provenance": reading.stamped.provenance,
                    "num_images": reading.stamped.num_images,
                    "note": reading.stamped.note,
                }
            writer.writerow({name: guarded(value) for name, value in row.items()})
    return file.getvalue()


def draw(models: Sequence[Measured], keys: Sequence[Key], *, without_k: Sequence[str]) -> bytes:
    """Return the figure as a PNG file.

    Args:
      models: with their k.
      keys: of the panels.
      without_k: names of models that cannot be drawn; the figure says so.
    """
    attentions = sorted({model.attention for model in models}, key=lambda a: (a != _LSKA, a))
    styles = drawing.styles(attentions)
    figure, panels = drawing.new_figure(1, len(keys), size=(3.7 * len(keys), 4.1))
    kernel_sizes = sorted({model.k for model in models})
    step = _STEP * max(1, kernel_sizes[-1] - kernel_sizes[0])
    has_means = False
    notes = [f"not drawn, without k: {', '.join(map(drawing.label_of, without_k))}"]
    notes = notes if without_k else []
    for panel, key in zip(panels, keys, strict=True):
        readings = [read(model.summary, key) for model in models]
        common = _common_provenance(readings)
        drawn = [
            (model, reading if reading.score and _comes_from(reading, common) else None)
            for model, reading in zip(models, readings, strict=True)
        ]
        found = provenances(reading.stamped for reading in readings)
        if len(found) > 1:
            others = sum(1 for one in readings if one.score and not _comes_from(one, common))
            notes.append(f"{set_title(key.set)}: {others} models on other data than {common}")
        for number, attention in enumerate(attentions):
            own = [(model, reading) for model, reading in drawn if model.attention == attention]
            aside = step * (number - (len(attentions) - 1) / 2)
            has_means |= _draw_line(panel, own, styles[attention], aside=aside, step=step)
        _draw_gaps(panel, drawn)
        _finish(panel, key, common, kernel_sizes)
    if notes:
        figure.suptitle("; ".join(notes), fontsize=8, color=drawing.GREY)
    drawing.legend_below(figure, *_legend(styles, has_means=has_means))
    return drawing.to_png(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; a mistake ends in one readable message."""
    parser = build_parser("lska_jax.robustness.shape_against_k", __doc__)
    arguments = parser.parse_args(argv)
    return run(lambda: shape_against_k(load_all(arguments.results), arguments.out))


def _with_k(summaries: Sequence[Summary]) -> list[Measured]:
    found = []
    for summary in summaries:
        k = _whole_k(summary.model.facts)
        if k is not None:
            attention = str(summary.model.facts.get("attention", "attention not known"))
            found.append(Measured(summary, k, attention))
    return found


def _whole_k(facts: Mapping[str, Any]) -> int | None:
    try:
        k = float(facts["k"])
    except (KeyError, TypeError, ValueError):
        return None
    return int(k) if k > 0 and k.is_integer() else None


def _common_provenance(readings: Sequence[Reading]) -> str:
    kinds = [one.stamped.provenance for one in readings if one.score and one.stamped]
    return max(kinds, key=kinds.count, default="")


def _comes_from(reading: Reading, provenance: str) -> bool:
    return reading.stamped is not None and reading.stamped.provenance == provenance


def _draw_line(
    panel: Any,
    own: Sequence[tuple[Measured, Reading | None]],
    style: drawing.Style,
    *,
    aside: float,
    step: float,
) -> bool:
    """Draw the models of one attention; tell whether there are means over several of one k.

    Points stand beside each other instead of on each other: the attentions on both sides of their
    k, ``aside`` of it, and the models of one attention and k on both sides of that.
    """
    by_k: dict[int, list[StampedScore]] = {}
    for model, reading in own:
        scores = by_k.setdefault(model.k, [])
        if reading and reading.stamped:
            scores.append(reading.stamped)
    has_means = False
    places, means = [], []
    for k, stamped in sorted(by_k.items()):
        places.append(k + aside)
        values = [100 * (one.score.value or 0.0) for one in stamped]
        # A gap in the line where nothing was measured.
        means.append(statistics.fmean(values) if values else math.nan)
        has_means |= len(values) > 1
        for number, (one, value) in enumerate(zip(stamped, values, strict=True)):
            spread = step / 2 * (2 * number / (len(values) - 1) - 1) if len(values) > 1 else 0.0
            panel.errorbar(
                [k + aside + spread],
                [value],
                yerr=drawing.interval_lengths([one.score]),
                color=style.colour,
                marker=style.marker,
                markersize=6 if len(values) == 1 else 5,
                markerfacecolor=style.colour if len(values) == 1 else "white",
                elinewidth=0.8,
                linestyle="none",
                zorder=2,
            )
    panel.plot(places, means, color=style.colour, linewidth=1.4, zorder=3)
    several = [len(stamped) > 1 for _, stamped in sorted(by_k.items())]
    panel.plot(
        [place for place, is_mean in zip(places, several, strict=True) if is_mean],
        [mean for mean, is_mean in zip(means, several, strict=True) if is_mean],
        color=style.colour,
        marker=style.marker,
        markersize=8,
        linestyle="none",
        zorder=4,
    )
    return has_means


def _draw_gaps(panel: Any, drawn: Sequence[tuple[Measured, Reading | None]]) -> None:
    """Write at each k what has no number there."""
    absent: dict[int, list[str]] = {}
    for model, reading in drawn:
        if reading is None:
            absent.setdefault(model.k, []).append(label_of_attention(model.attention))
    for k, names in absent.items():
        which = ", ".join(
            name + (f" x{names.count(name)}" if names.count(name) > 1 else "")
            for name in dict.fromkeys(names)
        )
        panel.text(
            k,
            0.03,
            f"no data: {which}",
            transform=panel.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            color=drawing.GREY,
        )


def label_of_attention(name: str) -> str:
    """Return how an attention is called in print."""
    return _ATTENTIONS.get(name, drawing.label_of(name))


def _finish(panel: Any, key: Key, provenance: str, kernel_sizes: Sequence[int]) -> None:
    facts = score_facts(key.score)
    of_alexnet = " of AlexNet" if key.score in _MCE else ""
    label = "clean top-1" if key.score == "top1" else facts.label
    panel.set_title(f"{set_title(key.set)}: {label}", fontsize=10.5)
    source = f", {provenance}" if provenance else ""
    panel.set_ylabel(f"{label} (%{of_alexnet}{source}) {facts.arrow}".rstrip())
    panel.set_xlabel("kernel size k")
    panel.set_xticks(kernel_sizes)
    room = max(2.0, 0.08 * (kernel_sizes[-1] - kernel_sizes[0]))
    panel.set_xlim(kernel_sizes[0] - room, kernel_sizes[-1] + room)
    panel.margins(y=0.15)
    if not provenance:
        panel.set_ylim(0, 100)
        panel.text(
            0.5, 0.6, WORDS["missing"], transform=panel.transAxes, ha="center", color=drawing.GREY
        )
    drawing.tidy(panel)


def _legend(styles: Mapping[str, drawing.Style], *, has_means: bool) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linewidth=1.4)
        for style in styles.values()
    ]
    labels = [label_of_attention(name) for name in styles]
    if has_means:
        handles.append(
            Line2D([], [], color=drawing.GREY, marker="o", markerfacecolor="white", linestyle="")
        )
        labels.append("one of several models; filled: their mean")
    return handles, labels


if __name__ == "__main__":
    sys.exit(main())
