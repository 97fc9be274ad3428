"""Scores of models that are no classifiers of one label: a metric of the whole set in each cell.

Segmentors, detectors, and classifiers of any number of labels an image.

The mean over corruptions and severities is the *mean performance under corruption*, and its ratio
to the metric on clean images the *relative* one, of Michaelis et al. 2019 (arXiv 1907.07484,
section 3.1), here retention. Metrics of a whole set have no interval over images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lska_jax.robustness.cells import Cell, CellResult, Score
from lska_jax.robustness.scores.over_cells import stamp
from lska_jax.robustness.scores.reference_errors import (
    ALL_CORRUPTIONS,
    CORRUPTIONS,
    SEVERITIES,
)
from lska_jax.robustness.scores.scorer import CellsOfSet, OverCells, Scorer

# By task: the clean set, the corrupted one, and metrics that means are taken of.
DENSE_SETS = {
    "segmentation": ("label_maps", "label_maps_c", ("miou",)),
    "detection": ("objects", "objects_c", ("box_ap", "mask_ap")),
    "multi_label": ("labels", "labels_c", ("map",)),
}
DENSE_METRICS = tuple(metric for *_, metrics in DENSE_SETS.values() for metric in metrics)
_MEANS = {"15": CORRUPTIONS, "19": ALL_CORRUPTIONS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseScorer(Scorer):
    """Means of metrics over the cells of corrupted images; cells are scored by their task.

    Attributes:
      clean: the set of the clean images.
      metrics: that means are taken of.
    """

    clean: str
    metrics: tuple[str, ...]

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Score each corruption and all together, where every cell is there; see ``Scorer``."""
        scores = {}
        clean = cells.get(Cell(self.clean))
        for metric in self.metrics:
            measured = {cell: r for cell, r in of_set.items() if metric in r.scores}
            for part in dict.fromkeys(cell.part for cell in measured):
                if used := _all_of(measured, name, [part]):
                    scores[f"{name}/{metric}/{part}"] = stamp(_mean(used, metric), used)
            for count, parts in _MEANS.items():
                used = _all_of(measured, name, parts)
                if not used:
                    continue
                mean = _mean(used, metric)
                scores[f"{name}/mean_{metric}_{count}"] = stamp(mean, used)
                whole = None if clean is None else clean.scores[metric].value
                if mean.value is not None and whole:
                    ratio = Score(mean.value / whole)
                    scores[f"{name}/retention_{metric}_{count}"] = stamp(ratio, used)
        return OverCells(scores)


def dense_scorer(name: str) -> Scorer | None:
    """Return the scorer of a set of dense prediction; None for another name."""
    for clean, corrupted, metrics in DENSE_SETS.values():
        if name == clean:
            return Scorer(headlines=metrics[:1])
        if name == corrupted:
            headlines = (f"mean_{metrics[0]}_15",)
            return DenseScorer(headlines=headlines, clean=clean, metrics=metrics)
    return None


def _all_of(of_set: CellsOfSet, name: str, parts: Sequence[str]) -> list[CellResult]:
    """Return the results of every severity of some corruptions; none where one is missing."""
    needed = [Cell(name, part, severity) for part in parts for severity in SEVERITIES]
    return [of_set[cell] for cell in needed] if all(cell in of_set for cell in needed) else []


def _mean(results: Sequence[CellResult], metric: str) -> Score:
    values = [result.scores[metric].value for result in results]
    known = [value for value in values if value is not None]
    return Score(float(np.mean(known)) if len(known) == len(values) else None)
