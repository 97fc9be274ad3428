"""One model whose weights are the mean of several: steps of a run, or runs from the same start.

A uniform soup (arXiv 2203.05482): it helps where the models lie in one valley of the loss, as
checkpoints of one run or models fine-tuned from the same weights do, and not elsewhere. BatchNorm's
statistics are averaged like the weights, as this package's running averages are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lska_jax.tasks.class_order import describe_difference, same_order
from lska_jax.training.model_places import read_model
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import check_can_write, write_model_folder


def average_models(
    places: Sequence[str | Path],
    out: str | Path,
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = print,
) -> ModelFacts:
    """Write a model folder whose arrays are the mean of those of several models.

    Args:
      places: of the models; see ``model_places.read_model``, also for what is raised.
      out: the model folder to write; preprocessing and names are those of the first.
      overwrite: replace a model folder that is there.
      report: receives remarks, one line each.

    Raises:
      ValueError: fewer than two models, or models of other architectures or classes.
      FileExistsError: ``out`` is not empty.
    """
    if len(places) < 2:
        raise ValueError(f"An average needs two models or more, got {len(places)}.")
    check_can_write(out, overwrite=overwrite)
    facts, arrays = read_model(places[0], report=report)
    sums = {path: array.astype(np.float64) for path, array in arrays.items()}
    for place in places[1:]:
        others, arrays = read_model(place, report=report)
        _check_alike(facts, others, str(places[0]), str(place))
        for path, array in arrays.items():
            sums[path] += array
    averaged = dataclasses.replace(
        facts, source={**facts.source, "average_of": [Path(place).name for place in places]}
    )
    # What the first model alone measured is not measured of the average.
    kept = {n: v for n, v in averaged.source.items() if "/" not in n}
    averaged = dataclasses.replace(averaged, source=kept)
    means = {path: (total / len(places)).astype(np.float32) for path, total in sums.items()}
    write_model_folder(out, averaged, means, overwrite=overwrite)
    return averaged


def _check_alike(facts: ModelFacts, others: ModelFacts, place: str, other: str) -> None:
    problems = []
    if facts.config != others.config:
        problems.append(f"{place} is {facts.description}, {other} is {others.description}")
    names, other_names = facts.class_names, others.class_names
    if names and other_names and not same_order(names, other_names):
        problems.append(describe_difference(names, other_names, what=place, other_what=other))
    if facts.preprocessing != others.preprocessing:
        problems.append(
            f"{place} wants {facts.preprocessing}, {other} wants {others.preprocessing}"
        )
    if problems:
        raise ValueError(f"These models cannot be averaged: {'; '.join(problems)}.")
