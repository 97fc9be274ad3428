"""Scores of corrupted images: the error of each cell, and means over severities and corruptions."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lska_jax.robustness.cells import Cell, CellResult, Outcomes, StampedScore
from lska_jax.robustness.scores.bootstrap import Interval, bootstrap_corruption_scores
from lska_jax.robustness.scores.corruption_error import (
    MissingCells,
    c_bar_mean_error,
    corruption_scores,
)
from lska_jax.robustness.scores.over_cells import are_same_images, mean_over_cells, stamp, value_of
from lska_jax.robustness.scores.reference_errors import SEVERITIES
from lska_jax.robustness.scores.scorer import (
    BOOTSTRAP_SEED,
    CellsOfSet,
    ClassSubset,
    OverCells,
    ScoredCell,
    Scorer,
    accuracy_scores,
    is_right,
    mean_score,
    with_interval,
)

# Scores that divide by AlexNet's errors on ImageNet mean nothing for other classes.
_ALEXNET_SCORES = ("mce", "ce", "relative_mce")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorScorer(Scorer):
    """Error, top-5 accuracy and likelihood of each cell; the mean error of each corruption."""

    headlines: tuple[str, ...] = ("mean_error",)

    def score_cell(
        self,
        cell: Cell,
        outcomes: Outcomes,
        *,
        labels: np.ndarray,
        extra: Mapping[str, np.ndarray],
        shapes: Sequence[str],
        subsets: Sequence[ClassSubset],
    ) -> ScoredCell:
        """Score one cell; see ``Scorer``."""
        top1 = is_right(outcomes, labels)
        accuracies = accuracy_scores(outcomes, labels)
        scores = {
            "error": mean_score(~top1),
            **{name: score for name, score in accuracies.items() if name == "top5"},
            "nll": mean_score(outcomes.nll[:, 0]),
        }
        return ScoredCell(scores, {"top1": top1})

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Score each corruption whose five severities are there; see ``Scorer``."""
        scores = {}
        for part in dict.fromkeys(cell.part for cell in of_set):
            needed = [Cell(name, part, severity) for severity in SEVERITIES]
            if not all(cell in of_set for cell in needed):
                continue
            used = [of_set[cell] for cell in needed]
            value = float(np.mean([value_of(result, "error") for result in used]))
            scores[f"{name}/error/{part}"] = stamp(mean_over_cells(value, used, "top1"), used)
        return OverCells(scores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorruptionScorer(ErrorScorer):
    """The scores of ImageNet-C besides.

    Attributes:
      clean: set of the clean images, which some scores compare with.
      is_against_alexnet: whether AlexNet's errors apply: only for ImageNet's classes.
    """

    clean: str
    is_against_alexnet: bool = True

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Score each corruption and all together; see ``Scorer``."""
        clean = cells.get(Cell(self.clean))
        errors = _errors(of_set)
        clean_error = None if clean is None else 1 - value_of(clean, "top1")
        values = corruption_scores(errors, clean_error=clean_error)
        used = list(of_set.values())
        intervals = _joint_intervals(errors, used, clean)
        scores = super().score_set(name, of_set, cells=cells).scores
        for key, value in values.items():
            if isinstance(value, MissingCells) or not self._applies(key):
                continue
            part = key.partition("/")[2]
            rests_on = [result for cell, result in of_set.items() if part in ("", cell.part)]
            interval = intervals.get(key)
            assert not isinstance(interval, MissingCells)  # as the value is none
            uses_clean = key.startswith(("relative_mce", "retention"))
            scores[f"{name}/{key}"] = stamp(
                with_interval(value, interval), rests_on, clean=clean if uses_clean else None
            )
        return OverCells(scores)

    def _applies(self, key: str) -> bool:
        score = key.partition("/")[0].removesuffix("_15").removesuffix("_19")
        return self.is_against_alexnet or score not in _ALEXNET_SCORES


@dataclasses.dataclass(frozen=True, kw_only=True)
class CBarScorer(ErrorScorer):
    """The mean error over the corruptions of ImageNet-C-bar besides."""

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Score each corruption and all together; see ``Scorer``."""
        scores: dict[str, StampedScore] = super().score_set(name, of_set, cells=cells).scores
        value = c_bar_mean_error(_errors(of_set))
        if not isinstance(value, MissingCells):
            used = list(of_set.values())
            scores[f"{name}/mean_error"] = stamp(mean_over_cells(value, used, "top1"), used)
        return OverCells(scores)


def _errors(of_set: CellsOfSet) -> dict[tuple[str, int], float]:
    return {(cell.part, cell.severity): value_of(r, "error") for cell, r in of_set.items()}


def _joint_intervals(
    errors: Mapping[tuple[str, int], float],
    used: Sequence[CellResult],
    clean: CellResult | None,
) -> Mapping[str, Interval | None | MissingCells]:
    """Draw the images of all cells together; other images than the clean ones cannot be."""
    if not are_same_images(used):
        return {}
    is_paired = clean is not None and are_same_images([used[0], clean])
    return bootstrap_corruption_scores(
        {part: result.outcomes["top1"] for part, result in zip(errors, used, strict=True)},
        seed=BOOTSTRAP_SEED,
        clean_correct=clean.outcomes["top1"] if clean is not None and is_paired else None,
    )
