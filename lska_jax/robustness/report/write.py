"""All files of a report, in one folder."""

import datetime
import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

import lska_jax
from lska_jax.data.image_file import read_image
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.sources import BrokenImage
from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report import corruption_pictures, page, paper_tables, results_table
from lska_jax.robustness.report.drawing import Picture
from lska_jax.robustness.report.grids import Grid, corruption_grid, corruption_scores, paper_grid
from lska_jax.robustness.report.readings import all_sets, check_summaries
from lska_jax.robustness.report.shape_picture import shape_bias_by_class
from lska_jax.robustness.report.shift_picture import shift_scatter
from lska_jax.robustness.report.terminal import terminal_table
from lska_jax.robustness.scores.dense_scorer import DENSE_METRICS
from lska_jax.running.whole_file import write_whole

PAGE = "report.html"
_VERSIONS_OF = ("jax", "flax", "numpy", "matplotlib")


def write_report(
    summaries: Sequence[Summary],
    folder: str | Path,
    *,
    sample_sheet: Image.Image | bytes | str | Path | None = None,
    title: str = "Robustness",
    conditions: Mapping[str, str] | None = None,
) -> Path:
    """Write the page, the tables, the results and the pictures, over files of the same name.

    ``report.html`` holds everything for people; ``summary.txt`` is the terminal's table,
    ``results.csv`` and ``results.json`` hold every number, ``tables.md`` and ``tables.tex`` the
    tables in the paper's form, and every picture is a PNG file too. Each file is written as a
    whole or not at all.

    Args:
      summaries: one for each model.
      folder: made if it is not there.
      sample_sheet: picture of corrupted samples to show: an image of Pillow, a PNG file or its
        bytes.
      title: of the page.
      conditions: what else the page says above everything, e.g. the suite and the command.

    Returns:
      The path of ``report.html``.

    Raises:
      ValueError: as ``readings.check_summaries``; the sample sheet is no picture.
    """
    check_summaries(summaries)
    pictures = draw_pictures(summaries)
    if sample_sheet is not None:
        pictures.append(_sample_picture(sample_sheet))
    said = {**_conditions(len(summaries)), **(conditions or {})}
    grids = paper_form_grids(summaries)
    files: dict[str, str | bytes] = {f"{picture.name}.png": picture.png for picture in pictures}
    files["summary.txt"] = terminal_table(summaries)
    files["results.csv"] = results_table.results_csv(summaries)
    files["results.json"] = results_table.results_json(summaries, conditions=said)
    files["tables.md"] = "\n".join(map(paper_tables.markdown, grids))
    files["tables.tex"] = "\n".join(map(paper_tables.latex, grids))
    # Last, so that whoever sees the page finds the rest beside it.
    files[PAGE] = page.page(summaries, pictures, title=title, conditions=said)
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(out / name, content)
    return out / PAGE


def paper_form_grids(summaries: Sequence[Summary]) -> list[Grid]:
    """Return the tables in the paper's form: the sets together, then each set by corruption."""
    grids = [paper_grid(summaries)]
    for name in all_sets(summaries):
        for score in corruption_scores(summaries, name):
            grids.append(corruption_grid(summaries, name, score))
    return [grid for grid in grids if grid.columns]


def draw_pictures(summaries: Sequence[Summary]) -> list[Picture]:
    """Return every picture that there are numbers for.

    Of a set of corruptions CE is drawn where there is one, else the error; of segmentors and
    detectors their metrics.
    """
    pictures: list[Picture | None] = [shift_scatter(summaries)]
    for name in all_sets(summaries):
        scores = corruption_scores(summaries, name)
        drawn = scores if scores and scores[0] in DENSE_METRICS else scores[:1]
        pictures += [corruption_pictures.bars(summaries, name, score) for score in drawn]
        pictures += [
            corruption_pictures.severity_curves(summaries, name, score)
            for score in ("error", *DENSE_METRICS)
        ]
    pictures.append(shape_bias_by_class(summaries))
    return [picture for picture in pictures if picture]


def _conditions(num_models: int) -> dict[str, str]:
    versions = [f"lska_jax {lska_jax.__version__}", f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS_OF]
    return {
        "Report written": datetime.datetime.now(datetime.UTC).isoformat(" ", timespec="minutes"),
        "With": ", ".join(versions),
        "Models": str(num_models),
    }


def _sample_picture(sheet: Image.Image | bytes | str | Path) -> Picture:
    try:
        if isinstance(sheet, Image.Image):
            image = sheet
        else:
            data = sheet if isinstance(sheet, bytes) else read_plain_file(sheet)
            image = read_image(data, lambda opened: opened.convert("RGB"), max_pixels=MAX_PIXELS)
        file = io.BytesIO()
        image.convert("RGB").save(file, format="PNG")
    except (OSError, BrokenImage) as error:
        raise ValueError(
            f"The sample sheet is no picture that can be read ({error}). Pass an image of Pillow "
            "or a PNG file."
        ) from error
    return Picture("samples", "Corrupted samples", "Samples of the corruptions.", file.getvalue())
