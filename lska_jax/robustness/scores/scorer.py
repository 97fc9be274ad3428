"""What a set is scored by: outcomes of a cell's images in, its scores with their intervals out.

``Scorer`` is the plain one, accuracy and confidence over all classes; sets that ask for something
else have a scorer of their own, which is part of their record.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lska_jax.robustness.cells import Cell, CellResult, Outcomes, Score, StampedScore
from lska_jax.robustness.scores import bootstrap, calibration

# Of the draws of every interval.
BOOTSTRAP_SEED = 0

CellsOfSet = Mapping[Cell, CellResult]


class ClassSubset(NamedTuple):
    """Some of the 1000 classes, which alone compete on a set.

    Attributes:
      name: of the set.
      classes: (C,) labels, ascending.
      keeps_confidence: whether scores over cells compare the set's images with the clean images of
        these classes.
    """

    name: str
    classes: np.ndarray
    keeps_confidence: bool = False


class ScoredCell(NamedTuple):
    """Scores of a cell, and what scores over several cells need of its images."""

    scores: dict[str, Score]
    outcomes: dict[str, np.ndarray]


class OverCells(NamedTuple):
    """Scores over the cells of a set.

    Attributes:
      scores: by their keys in a summary.
      hole: why a score that the set is known by is not among them, or "".
    """

    scores: dict[str, StampedScore]
    hole: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """Accuracy and confidence over all classes; nothing over several cells.

    Attributes:
      headlines: the scores that a set is known by; the report shows them also where images are
        missing.
      is_by_part: whether the parts of the set are as good as sets of their own, so that the report
        shows the headlines of each.
    """

    headlines: tuple[str, ...] = ("top1",)
    is_by_part: bool = False

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
        """Score one cell.

        Args:
          cell: which.
          outcomes: of the N counted images, on the host.
          labels: (N,) in the model's classes; of the cue conflict in ``shapes``.
          extra: what the set says of each image besides, see ``sets.opening.CellData``; of frames
            also "sequence_length" (N,), how many their sequence has.
          shapes: shape classes that the model can decide between.
          subsets: class subsets that the outcomes hold behind that of all classes.

        Raises:
          ValueError: the images allow no score.
        """
        top1 = is_right(outcomes, labels)
        return ScoredCell(
            {**accuracy_scores(outcomes, labels), **confidence_scores(outcomes, top1, column=0)}, {}
        )

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Score what only several cells together give.

        Args:
          name: of the set.
          of_set: its cells, of one provenance and preprocessing.
          cells: all cells of the model.
        """
        return OverCells({})


def is_right(outcomes: Outcomes, labels: np.ndarray, *, column: int = 0) -> np.ndarray:
    """Return (N,) bool: is the label predicted among the classes of a subset, 0 being all."""
    right: np.ndarray = outcomes.prediction[:, column] == labels
    return right


def accuracy_scores(outcomes: Outcomes, labels: np.ndarray) -> dict[str, Score]:
    """Return "top1" and, where there are more than five classes, "top5" over all classes."""
    scores = {"top1": mean_score(is_right(outcomes, labels))}
    if outcomes.top5.shape[1] > 1:
        scores["top5"] = mean_score(np.any(outcomes.top5 == labels[:, None], axis=1))
    return scores


def confidence_scores(outcomes: Outcomes, correct: np.ndarray, *, column: int) -> dict[str, Score]:
    """Return calibration, AURRA and likelihood among the classes of a subset, 0 being all."""
    confidence = outcomes.confidence[:, column]
    measure = calibration.calibration_scores
    intervals = bootstrap.bootstrap_scores(measure, confidence, correct, seed=BOOTSTRAP_SEED)
    scores = {
        name: with_interval(value, intervals[name])
        for name, value in measure(confidence, correct).items()
        if value is not None
    }
    scores["nll"] = mean_score(outcomes.nll[:, column])
    return scores


def mean_score(values: np.ndarray) -> Score:
    """Return a mean over images; undefined where one is infinite."""
    if not np.isfinite(values).all():
        return Score(None)
    values = values.astype(np.float64)
    return with_interval(
        float(values.mean()), bootstrap.bootstrap_mean(values, seed=BOOTSTRAP_SEED)
    )


def with_interval(value: float | None, interval: bootstrap.Interval | None) -> Score:
    """Return a score; without an interval where there is none."""
    if value is None or interval is None:
        return Score(value)
    return Score(value, interval.low, interval.high)
