"""From the cells of a results file to the scores of each model.

Scores over several cells are given where every cell is there, with one provenance and one
preprocessing; otherwise they are left out, and the holes say why.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lska_jax.robustness.cells import Cell, CellResult, Hole, Score, StampedScore, Summary
from lska_jax.robustness.scores import MissingCells
from lska_jax.robustness.scores.bootstrap import (
    Interval,
    bootstrap_aupr_out,
    bootstrap_corruption_scores,
    bootstrap_mean,
)
from lska_jax.robustness.scores.cell_scores import (
    BOOTSTRAP_SEED,
    CLEAN_SETS,
    CORRUPTION_SETS,
    with_interval,
)
from lska_jax.robustness.scores.corruption_error import c_bar_mean_error, corruption_scores
from lska_jax.robustness.scores.detection import aupr_out
from lska_jax.robustness.scores.perturbation import mean_over_perturbations
from lska_jax.robustness.scores.reference_errors import SEVERITIES
from lska_jax.robustness.sweep.results_file import Results, load_results

_NOT_MEASURED = "not measured yet: the sweep has not come to it; run the same command again"
_NEEDS_CLEAN = (
    "is told from clean images of the same 200 classes, which are not measured: add imagenet to "
    "--suite"
)
# Scores that divide by AlexNet's errors on ImageNet mean nothing for other classes.
_ALEXNET_SCORES = ("mce", "ce", "relative_mce")

CellsOfSet = Mapping[Cell, CellResult]


def load_summaries(path: str | Path) -> list[Summary]:
    """Return one summary for each model of a results file, in its order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no results file, of another version, or damaged.
    """
    return summarise(load_results(path))


def summarise(results: Results) -> list[Summary]:
    """Return one summary for each model, in the order of the results."""
    return [_summarise_model(results, name) for name in results.models]


def _summarise_model(results: Results, name: str) -> Summary:
    cells = {cell: result for (model, cell), result in results.cells.items() if model == name}
    holes = [
        Hole(cell, results.holes.get(cell, _NOT_MEASURED))
        for cell in results.plan
        if cell not in cells
    ]
    scores: dict[str, StampedScore] = {}
    for set_name in dict.fromkeys(cell.set for cell in results.plan):
        of_set = {
            cell: cells[cell] for cell in results.plan if cell.set == set_name and cell in cells
        }
        if not of_set:
            continue
        for cell, result in of_set.items():
            scores |= _scores_of_cell(cell, result)
        mixed = _mixture(of_set)
        if mixed:
            holes.append(Hole(Cell(set_name), mixed))
            continue
        if set_name in CORRUPTION_SETS:
            scores |= _errors_of_parts(set_name, of_set)
        over_cells = _OVER_CELLS.get(set_name)
        if over_cells:
            scores |= over_cells(set_name, of_set, cells)
        if set_name == "imagenet_o" and "imagenet_o/aupr_out" not in scores:
            holes.append(Hole(Cell(set_name), _NEEDS_CLEAN))
    return Summary(model=results.models[name], scores=scores, holes=tuple(holes))


def _scores_of_cell(cell: Cell, result: CellResult) -> dict[str, StampedScore]:
    """Return a cell's own scores: SET/SCORE[/PART][/SEVERITY]."""
    scores = {}
    suffix = "".join(f"/{word}" for word in (cell.part, cell.severity) if word)
    for key, score in result.scores.items():
        name, _, rest = key.partition("/")
        if cell.set in CLEAN_SETS and name.startswith("clean_"):
            # The control of a subset stands beside the subset's own scores.
            scores[f"{rest}/{name}"] = _stamp(score, [result])
        else:
            scores[f"{cell.set}/{key}{suffix}"] = _stamp(score, [result])
    return scores


def _mixture(of_set: CellsOfSet) -> str:
    """Say what cells of one set do not share and a score over them would mix, or ""."""
    counts = {result.num_images + result.num_broken for result in of_set.values()}
    if len(counts) > 1:
        short = min(of_set.values(), key=lambda result: result.num_images + result.num_broken)
        return (
            f"no score over the whole set: {short.cell} has {min(counts):,} images, others up to "
            f"{max(counts):,}"
        )
    for what in ("provenance", "preprocessing"):
        found = sorted({getattr(result, what) for result in of_set.values()})
        if len(found) > 1:
            return (
                f"no score over the whole set: its cells differ in {what} ({'; '.join(found)}); "
                "measure all of them alike, with --provenance or --pixels and another --out"
            )
    return ""


def _errors_of_parts(set_name: str, of_set: CellsOfSet) -> dict[str, StampedScore]:
    """Return the mean error of each corruption whose five severities are there."""
    scores = {}
    for part in dict.fromkeys(cell.part for cell in of_set):
        cells = [Cell(set_name, part, severity) for severity in SEVERITIES]
        if not all(cell in of_set for cell in cells):
            continue
        used = [of_set[cell] for cell in cells]
        value = float(np.mean([_value(result, "error") for result in used]))
        scores[f"{set_name}/error/{part}"] = _stamp(_mean_over_cells(value, used, "top1"), used)
    return scores


def _corruption_scores(
    set_name: str, of_set: CellsOfSet, cells: CellsOfSet
) -> dict[str, StampedScore]:
    has_alexnet = set_name == "imagenet_c"
    clean = cells.get(Cell("imagenet" if has_alexnet else "clean"))
    errors = {(cell.part, cell.severity): _value(r, "error") for cell, r in of_set.items()}
    clean_error = None if clean is None else 1 - _value(clean, "top1")
    values = corruption_scores(errors, clean_error=clean_error)
    used = list(of_set.values())
    intervals: Mapping[str, Interval | None | MissingCells] = {}
    # Cells are drawn together, image by image; other images than the clean ones cannot be.
    if _are_same_images(used):
        is_paired = clean is not None and _are_same_images([used[0], clean])
        intervals = bootstrap_corruption_scores(
            {part: result.outcomes["top1"] for part, result in zip(errors, used, strict=True)},
            seed=BOOTSTRAP_SEED,
            clean_correct=clean.outcomes["top1"] if clean is not None and is_paired else None,
        )
    scores = {}
    for key, value in values.items():
        is_relative_to_alexnet = key.partition("/")[0].removesuffix("_15").removesuffix("_19")
        if isinstance(value, MissingCells) or (
            not has_alexnet and is_relative_to_alexnet in _ALEXNET_SCORES
        ):
            continue
        part = key.partition("/")[2]
        rests_on = [r for cell, r in of_set.items() if part in ("", cell.part)]
        interval = intervals.get(key)
        assert not isinstance(interval, MissingCells)  # as the value is none
        uses_clean = key.startswith(("relative_mce", "retention"))
        scores[f"{set_name}/{key}"] = _stamp(
            with_interval(value, interval), rests_on, clean=clean if uses_clean else None
        )
    return scores


def _c_bar_scores(set_name: str, of_set: CellsOfSet, cells: CellsOfSet) -> dict[str, StampedScore]:
    errors = {(cell.part, cell.severity): _value(r, "error") for cell, r in of_set.items()}
    value = c_bar_mean_error(errors)
    if isinstance(value, MissingCells):
        return {}
    used = list(of_set.values())
    return {f"{set_name}/mean_error": _stamp(_mean_over_cells(value, used, "top1"), used)}


def _perturbation_scores(
    set_name: str, of_set: CellsOfSet, cells: CellsOfSet
) -> dict[str, StampedScore]:
    scores = {}
    for key in ("flip_probability", "top5_distance"):
        values = {cell.part: _value(result, key) for cell, result in of_set.items()}
        value = mean_over_perturbations(values, score=key)
        if not isinstance(value, MissingCells):
            used = list(of_set.values())
            scores[f"{set_name}/{key}"] = _stamp(_mean_over_cells(value, used, key), used)
    return scores


def _detection_scores(
    set_name: str, of_set: CellsOfSet, cells: CellsOfSet
) -> dict[str, StampedScore]:
    clean = cells.get(Cell("imagenet"))
    if clean is None or "confidence_imagenet_o" not in clean.outcomes:
        return {}
    (result,) = of_set.values()
    outside = result.outcomes["confidence_imagenet_o"]
    known = clean.outcomes["confidence_imagenet_o"]
    interval = bootstrap_aupr_out(outside, known, seed=BOOTSTRAP_SEED)
    score = with_interval(aupr_out(outside, known), interval)
    return {f"{set_name}/aupr_out": _stamp(score, [result], clean=clean)}


_OVER_CELLS: Mapping[str, Callable[[str, CellsOfSet, CellsOfSet], dict[str, StampedScore]]] = {
    "imagenet_c": _corruption_scores,
    "clean_c": _corruption_scores,
    "imagenet_c_bar": _c_bar_scores,
    "imagenet_p": _perturbation_scores,
    "imagenet_o": _detection_scores,
}


def _value(result: CellResult, key: str) -> float:
    value = result.scores[key].value
    assert value is not None
    return value


def _mean_over_cells(value: float, results: Sequence[CellResult], key: str) -> Score:
    """Return a mean over cells; its interval draws the same images in all of them."""
    if not _are_same_images(results):
        return Score(value)
    outcomes = np.stack([result.outcomes[key] for result in results])
    of_images = np.asarray(np.mean(~outcomes if key == "top1" else outcomes, axis=0, dtype=float))
    return with_interval(value, bootstrap_mean(of_images, seed=BOOTSTRAP_SEED))


def _are_same_images(results: Sequence[CellResult]) -> bool:
    """Tell whether cells counted the same images, so that they can be drawn together."""
    first = results[0].outcomes["images"]
    return all(np.array_equal(first, result.outcomes["images"]) for result in results[1:])


def _stamp(
    score: Score, results: Sequence[CellResult], *, clean: CellResult | None = None
) -> StampedScore:
    """Put a score beside what is true of the cells, of one set, that it rests on.

    Args:
      score: the number.
      results: of the cells.
      clean: the control that the score compares them with, if it does.
    """
    notes = [note for result in results for note in result.note.split("; ") if note]
    broken = [result.num_broken for result in results]
    is_generated = results[0].provenance == "generated"
    if any(broken):
        # The same clean images are corrupted again and again: count them once.
        total = max(broken) if is_generated else sum(broken)
        notes.append(f"unreadable images: {total}")
    if clean is not None:
        # What is generated from the clean images is of another provenance by its nature.
        is_foreign = clean.provenance != results[0].provenance and not is_generated
        if is_foreign or clean.preprocessing != results[0].preprocessing:
            notes.append(f"clean control: {clean.provenance}, {clean.preprocessing}")
        notes += [f"clean control: {n}" for n in clean.note.split("; ") if n and n not in notes]
        if score.low is None and score.value is not None:
            notes.append("no interval: the clean images are not the same")
    return StampedScore(
        score=score,
        provenance=results[0].provenance,
        preprocessing=results[0].preprocessing,
        num_images=max(result.num_images for result in results),
        note="; ".join(dict.fromkeys(notes)),
    )
