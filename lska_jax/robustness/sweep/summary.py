"""From the cells of a results file to the scores of each model.

Scores over several cells are given where every cell is there, with one provenance and one
preprocessing; otherwise they are left out, and the holes say why.
"""

from pathlib import Path

from lska_jax.robustness.cells import Cell, CellResult, Hole, StampedScore, Summary
from lska_jax.robustness.scores.over_cells import stamp
from lska_jax.robustness.scores.scorer import CellsOfSet
from lska_jax.robustness.sets.catalogue import find_scorer
from lska_jax.robustness.sweep.results_file import Results, load_results

# What scores raise whose results lack something, or differ in length.
_UNFIT = (ValueError, LookupError, TypeError, AttributeError, AssertionError)
_NOT_MEASURED = "not measured yet: the sweep has not come to it; run the same command again"


def load_summaries(path: str | Path) -> list[Summary]:
    """Return one summary for each model of a results file, in its order.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no results file, of another version, or damaged.
    """
    return summarise(load_results(path), where=path)


def summarise(results: Results, *, where: str | Path) -> list[Summary]:
    """Return one summary for each model, in the order of the results.

    Args:
      results: of a file.
      where: the file, for messages.

    Raises:
      ValueError: results do not hold what scores over several cells need.
    """
    summaries = []
    for name in results.models:
        try:
            summaries.append(_summarise_model(results, name))
        except _UNFIT as error:
            raise ValueError(
                f"{where}: the results of {name} do not fit together ({type(error).__name__}: "
                f"{error}). Remove their lines: their cells are then measured again."
            ) from error
    return summaries


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
        over_cells = find_scorer(set_name).score_set(set_name, of_set, cells=cells)
        scores |= over_cells.scores
        if over_cells.hole:
            holes.append(Hole(Cell(set_name), over_cells.hole))
    return Summary(model=results.models[name], scores=scores, holes=tuple(holes))


def _scores_of_cell(cell: Cell, result: CellResult) -> dict[str, StampedScore]:
    """Return a cell's own scores: SET/SCORE[/PART][/SEVERITY]."""
    scores = {}
    suffix = "".join(f"/{word}" for word in (cell.part, cell.severity) if word)
    for key, score in result.scores.items():
        name, _, rest = key.partition("/")
        if name.startswith("clean_"):
            # The control of a subset stands beside the subset's own scores.
            scores[f"{rest}/{name}"] = stamp(score, [result])
        else:
            scores[f"{cell.set}/{key}{suffix}"] = stamp(score, [result])
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
