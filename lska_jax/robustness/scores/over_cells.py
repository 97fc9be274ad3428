"""Pieces of scores over several cells: means with joint intervals, and what a score rests on."""

from collections.abc import Sequence

import numpy as np

from lska_jax.robustness.cells import CellResult, Score, StampedScore
from lska_jax.robustness.scores.bootstrap import bootstrap_mean
from lska_jax.robustness.scores.scorer import BOOTSTRAP_SEED, with_interval


def value_of(result: CellResult, key: str) -> float:
    """Return a score of a cell that is always defined."""
    value = result.scores[key].value
    assert value is not None
    return value


def mean_over_cells(value: float, results: Sequence[CellResult], key: str) -> Score:
    """Return a mean over cells; its interval draws the same images in all of them.

    Args:
      value: the mean.
      results: of the cells.
      key: of the outcomes of each image that are drawn; of "top1" the opposite, errors.
    """
    if not are_same_images(results):
        return Score(value)
    outcomes = np.stack([result.outcomes[key] for result in results])
    of_images = np.asarray(np.mean(~outcomes if key == "top1" else outcomes, axis=0, dtype=float))
    return with_interval(value, bootstrap_mean(of_images, seed=BOOTSTRAP_SEED))


def are_same_images(results: Sequence[CellResult]) -> bool:
    """Tell whether cells counted the same images, so that they can be drawn together."""
    first = results[0].outcomes["images"]
    return all(np.array_equal(first, result.outcomes["images"]) for result in results[1:])


def stamp(
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
