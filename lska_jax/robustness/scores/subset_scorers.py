"""Scores of sets with 200 of the 1000 classes, and of the clean images that control them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lska_jax.robustness.cells import Cell, Outcomes
from lska_jax.robustness.scores.scorer import (
    ClassSubset,
    ScoredCell,
    Scorer,
    accuracy_scores,
    confidence_scores,
    is_right,
    mean_score,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubsetScorer(Scorer):
    """Accuracy with the logits of the set's own classes, and with all; confidence among its own.

    What the papers of ImageNet-A and ImageNet-R report (arXiv 1907.07174, arXiv 2006.16241): their
    evaluation code cuts the logits to the 200 classes.
    """

    headlines: tuple[str, ...] = ("top1_200",)

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
        column = column_of(cell.set, subsets)
        within = is_right(outcomes, labels, column=column)
        scores = {
            "top1_200": mean_score(within),
            **accuracy_scores(outcomes, labels),
            **confidence_scores(outcomes, within, column=column),
        }
        return ScoredCell(scores, {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleanScorer(Scorer):
    """The plain scores, and for each subset those of its clean images, which control it.

    On clean images of the classes of ImageNet-A or -R alone, accuracy with 200 logits says what the
    subset costs without any shift (arXiv 1907.07174, arXiv 2006.16241).
    """

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
        plain = super().score_cell(
            cell, outcomes, labels=labels, extra=extra, shapes=shapes, subsets=subsets
        )
        top1 = is_right(outcomes, labels)
        scores, kept = dict(plain.scores), {"top1": top1}
        for column, subset in enumerate(subsets, start=1):
            is_member = np.isin(labels, subset.classes)
            if not is_member.any():
                continue
            within = is_right(outcomes, labels, column=column)[is_member]
            scores[f"clean_top1_200/{subset.name}"] = mean_score(within)
            scores[f"clean_top1/{subset.name}"] = mean_score(top1[is_member])
            if subset.keeps_confidence:
                kept[confidence_key(subset.name)] = outcomes.confidence[is_member, column]
        return ScoredCell(scores, kept)


def column_of(name: str, subsets: Sequence[ClassSubset]) -> int:
    """Return where outcomes hold a subset; column 0 is that of all classes.

    Raises:
      ValueError: they do not hold it.
    """
    names = [subset.name for subset in subsets]
    if name not in names:
        raise ValueError(
            f"The outcomes hold no subset of classes for {name}, only {', '.join(names) or 'none'}."
        )
    return 1 + names.index(name)


def confidence_key(name: str) -> str:
    """Return what the confidences within a subset are called among a cell's outcomes."""
    return f"confidence_{name}"
