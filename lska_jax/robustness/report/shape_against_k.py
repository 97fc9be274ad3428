"""Shape bias, corruption error and accuracy against k: the paper's claim as a figure.

``lska-jax report RESULTS_FILE... --out DIR --against_k`` draws it for the models in results files.
The paper (Lau, Po and Rehman, arXiv 2309.01439) argues that LSKA sees more shape
and less texture as k grows; whether that holds for the models at hand is what the figure shows.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report.kernel_size_picture import (
    Measured,
    kernel_size,
    scores_against_k,
    with_kernel_size,
)
from lska_jax.robustness.report.names import Key, clean_set
from lska_jax.robustness.report.readings import (
    all_keys,
    all_sets,
    check_summaries,
    read,
)
from lska_jax.robustness.report.results_table import guarded
from lska_jax.running.whole_file import write_whole

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


def shape_against_k(summaries: Sequence[Summary], folder: str | Path) -> Path:
    """Draw shape bias, corruption error and clean accuracy against k; write the numbers beside it.

    The middle panel is mCE where AlexNet's errors apply, else the mean error over a set's
    corruptions, and says which. Models of one attention, size and k, for example several seeds, are
    single points, and their mean is a point of its own on the line. Points of one k stand a little
    beside each other. A panel holds numbers of one provenance only.

    Args:
      summaries: one for each model; ``ModelStamp.facts`` has to hold "k" and should hold
        "attention" and "parameters", which tell lines apart.
      folder: where ``shape_against_k.png`` and ``shape_against_k.csv`` go.

    Returns:
      The path of the picture.

    Raises:
      ValueError: as ``readings.check_summaries``; no model has a usable k.
    """
    check_summaries(summaries)
    models = with_kernel_size(summaries)
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
    without_k = [one.model.name for one in summaries if kernel_size(one) is None]
    write_whole(path, scores_against_k(models, keys, without_k=without_k))
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
