"""95 % intervals: what the scores would be on other images of the same kind.

The percentile bootstrap (Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of
Statistics 7, 1979; Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13): draw as
many images as there are, with replacement, compute the score, and again; the interval lies between
the 2.5 % and 97.5 % quantiles. It speaks of the choice of images alone, not of training runs. Where
all images agree (one image, all right) all draws do, and its width is 0: the images at hand do not
show how rare the other outcome is.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from lska_jax.robustness.scores.checks import check_lengths, check_outcomes, check_probabilities
from lska_jax.robustness.scores.corruption_error import (
    CORRUPTION_COUNTS,
    MissingCells,
    ce_of_means,
    check_cells,
    corruption_set,
    missing_cells,
    relative_ce_of_means,
)
from lska_jax.robustness.scores.detection import average_precision_of_counts
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS, CORRUPTIONS, SEVERITIES
from lska_jax.robustness.scores.shape_bias import ShapeBias

RESAMPLES = 1000
LEVEL = 0.95
# Rows of one matrix product; the counts of 50,000 images then take 10 MB.
_DRAWS_AT_A_TIME = 50


class Interval(NamedTuple):
    """Lower and upper end of an interval."""

    low: float
    high: float


def bootstrap_mean(
    values: Shaped[np.ndarray, " images"],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return the interval of a mean over images: accuracy, flip probability, likelihood.

    The mean of outcomes that are 0 or 1 is drawn from the binomial distribution, which is exactly
    that of the bootstrap. A mean over cells that show the same images (ImageNet-C-bar) is the mean
    over images of each image's mean over the cells: pass those. Of ImageNet-P pass one value a
    video, of ``flip_probabilities`` or ``top5_distances``: its frames are not independent.

    Args:
      values: (N,) one an image, finite.
      seed: of the draws; the same seed gives the same interval.
      resamples: draws.
      level: between 0 and 1.

    Raises:
      ValueError: no images, values that are not finite, fewer than one draw, a level outside
        (0, 1).
    """
    count = check_lengths(values=values)
    if not np.isfinite(values).all():
        raise ValueError("values holds NaN or infinity: such a mean has no interval.")
    rng = _generator(seed, resamples)
    weights = values.astype(np.float64)
    if ((weights == 0) | (weights == 1)).all():
        draws = rng.binomial(count, weights.mean(), resamples) / count
    else:
        draws = np.asarray(
            [weights[rng.integers(0, count, size=count)].mean() for _ in range(resamples)]
        )
    return _middle(draws, level)


def bootstrap_scores(
    scores: Callable[..., Mapping[str, float | None]],
    *arrays: Shaped[np.ndarray, " images"],
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval | None]:
    """Return the intervals of any scores of arrays with one entry an image.

    Slower than ``bootstrap_mean``: the scores are computed anew for each draw. They must not depend
    on the order of the images, which are drawn in the order of the first array: confidences that
    are sorted need no sorting again.

    Args:
      scores: function of the arrays that returns scores by name, e.g. ``calibration_scores``; one
        that is None is undefined, and such draws are left out.
      *arrays: (N,) each, e.g. confidence and correct.
      seed: of the draws.
      resamples: draws.
      level: between 0 and 1.

    Returns:
      Name to interval; None where the score of the images themselves, or of all draws, is
      undefined.

    Raises:
      ValueError: lengths differ, no images, fewer than one draw, a level outside (0, 1); what the
        scores raise.
    """
    count = check_lengths(**{f"array {i}": array for i, array in enumerate(arrays)})
    rng = _generator(seed, resamples)
    values = scores(*arrays)
    draws: dict[str, list[float]] = {name: [] for name in values}
    order = np.argsort(arrays[0], kind="stable")
    ordered = [array[order] for array in arrays]
    for counts in _resample_counts(count, resamples, rng):
        drawn = np.repeat(np.arange(count), counts)
        for name, value in scores(*(array[drawn] for array in ordered)).items():
            if value is not None:
                draws[name].append(value)
    intervals: dict[str, Interval | None] = {}
    for name, value in values.items():
        if value is None or not draws[name]:
            intervals[name] = None
            continue
        drawn_values = np.asarray(draws[name])
        unbiased = drawn_values - (drawn_values.mean() - value)
        intervals[name] = _middle(np.clip(unbiased, 0.0, 1.0), level)
    return intervals


def bootstrap_aupr_out(
    confidence_out: Float[np.ndarray, " out"],
    confidence_in: Float[np.ndarray, " known"],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return the interval of ``aupr_out``: unknown and known images are drawn each among their own.

    Arguments and errors as in ``aupr_out`` and ``bootstrap_mean``.
    """
    check_lengths(confidence_out=confidence_out)
    check_lengths(confidence_in=confidence_in)
    check_probabilities("confidence_out", confidence_out)
    check_probabilities("confidence_in", confidence_in)
    rng = _generator(seed, resamples)
    # Ascending confidence is descending anomaly, as average_precision_of_counts wants it.
    values, threshold = np.unique(
        np.concatenate([confidence_out, confidence_in]), return_inverse=True
    )
    threshold_out, threshold_in = np.split(threshold, [confidence_out.size])
    draws_out = _resample_counts(confidence_out.size, resamples, rng)
    draws_in = _resample_counts(confidence_in.size, resamples, rng)
    draws = [
        average_precision_of_counts(
            np.bincount(threshold_out, weights=counts_out, minlength=values.size)[None],
            np.bincount(threshold_in, weights=counts_in, minlength=values.size)[None],
        )
        for counts_out, counts_in in zip(draws_out, draws_in, strict=True)
    ]
    return _middle(np.concatenate(draws), level)


class ShapeBiasIntervals(NamedTuple):
    """Intervals of the two numbers of ``ShapeBias``; None where one is undefined."""

    bias: Interval | None
    decided_fraction: Interval | None


def bootstrap_shape_bias(
    counts: ShapeBias, *, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> ShapeBiasIntervals:
    """Return the intervals of shape bias and decided fraction over the counted stimuli.

    How many of the drawn stimuli follow shape, texture and neither is multinomial, which is exactly
    the bootstrap over stimuli. Draws in which nothing is decided have no bias and are left out. For
    one shape class, pass its own counts: its stimuli are drawn among themselves.

    Args:
      counts: of one class of ``shape_bias_per_class``, or the sums over all.
      seed: of the draws.
      resamples: draws.
      level: between 0 and 1.

    Raises:
      ValueError: more stimuli followed a cue than were counted, fewer than one draw, a level
        outside (0, 1).
    """
    undecided = counts.counted - counts.shape_correct - counts.texture_correct
    if min(counts.shape_correct, counts.texture_correct, undecided) < 0:
        raise ValueError(
            f"{counts}: counts are at least 0, and shape_correct + texture_correct at most counted."
        )
    rng = _generator(seed, resamples)
    if counts.counted == 0:
        return ShapeBiasIntervals(None, None)
    outcomes = np.asarray([counts.shape_correct, counts.texture_correct, undecided])
    draws = rng.multinomial(counts.counted, outcomes / counts.counted, size=resamples)
    decided = draws[:, 0] + draws[:, 1]
    bias = draws[decided > 0, 0] / decided[decided > 0]
    return ShapeBiasIntervals(
        _middle(bias, level) if bias.size else None,
        _middle(decided / counts.counted, level),
    )


def bootstrap_corruption_scores(
    correct: Mapping[tuple[str, int], Shaped[np.ndarray, " images"]],
    *,
    seed: int,
    clean_correct: Shaped[np.ndarray, " images"] | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Interval | None | MissingCells]:
    """Return the intervals of ``corruption_scores``, by the same names.

    Every cell shows the same images, so each draw takes the same ones in all cells, and in the
    clean set: what is hard for the model in one cell tends to be hard in all, and intervals drawn
    cell by cell would be far too narrow.

    Args:
      correct: (corruption, severity) to (N,) bool or 0 and 1, images in the same order in each.
      seed: of the draws.
      clean_correct: (N,) the same images without corruption; None where they were not measured.
      resamples: draws.
      level: between 0 and 1.

    Returns:
      Name to interval; ``MissingCells`` where the score has cells missing; None where it is
      undefined.

    Raises:
      ValueError: as ``error_table``; cells with different numbers of images, no images, outcomes
        that are not 0 or 1, fewer than one draw, a level outside (0, 1).
    """
    cells = {f"{name}/{severity}": outcomes for (name, severity), outcomes in correct.items()}
    if clean_correct is not None:
        cells["clean"] = clean_correct
    if cells:
        check_lengths(**cells)
    for name, outcomes in cells.items():
        check_outcomes(name, outcomes)
    check_cells(correct)
    # Every score is made of the mean over severities of each corruption, and of the clean mean; so
    # the severities are added up before images are drawn.
    whole = [name for name in ALL_CORRUPTIONS if all((name, s) in correct for s in SEVERITIES)]
    rows = [sum(correct[name, s].astype(np.uint8) for s in SEVERITIES) for name in whole]
    if clean_correct is not None:
        rows.append(len(SEVERITIES) * clean_correct.astype(np.uint8))
    if rows:
        means = joint_means(np.stack(rows), seed=seed, resamples=resamples) / len(SEVERITIES)
        clean_error = 1 - means[:, -1]
    intervals: dict[str, Interval | None | MissingCells] = {}
    for label, key, names in _planned_scores(with_clean=clean_correct is not None):
        hole = missing_cells(correct, names, score=label)
        if hole is not None:
            intervals[key] = hole
            continue
        drawn = 1 - means[:, [whole.index(name) for name in names]]
        draws = _draws_of(key, drawn, names, clean_error)
        defined = draws[np.isfinite(draws)]
        intervals[key] = _middle(defined, level) if defined.size else None
    return intervals


def joint_means(
    values: Shaped[np.ndarray, "cells images"], *, seed: int, resamples: int = RESAMPLES
) -> Float[np.ndarray, "draws cells"]:
    """Return each cell's mean over drawn images, the same images in every cell.

    Args:
      values: (cells, N), images in the same order in each.
      seed: of the draws.
      resamples: draws, R.

    Returns:
      (R, cells) float64.

    Raises:
      ValueError: no images, fewer than one draw.
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values has shape {values.shape}: (cells, images) is needed, none empty.")
    rng = _generator(seed, resamples)
    images = values.shape[1]
    # Whole numbers add up exactly in float32 below 2^24, which halves the time.
    is_exact = values.dtype in (np.bool_, np.uint8) and int(values.max()) * images < 2**24
    weights = values.astype(np.float32 if is_exact else np.float64)
    means = np.empty((resamples, values.shape[0]))
    draws = _resample_counts(images, resamples, rng)
    for start in range(0, resamples, _DRAWS_AT_A_TIME):
        counts = np.asarray([*itertools.islice(draws, _DRAWS_AT_A_TIME)], dtype=weights.dtype)
        means[start : start + _DRAWS_AT_A_TIME] = counts @ weights.T
    return means / images


def _planned_scores(*, with_clean: bool) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the label, key and corruptions of every score of ``corruption_scores``."""
    yield "mean error (15)", "mean_error", CORRUPTIONS
    yield "mean error (19)", "mean_error_19", ALL_CORRUPTIONS
    for count in CORRUPTION_COUNTS:
        yield f"mCE ({count})", f"mce_{count}", corruption_set(count)
        if with_clean:
            yield f"relative mCE ({count})", f"relative_mce_{count}", corruption_set(count)
            yield f"retention ({count})", f"retention_{count}", corruption_set(count)
    for name in ALL_CORRUPTIONS:
        yield f"CE of {name}", f"ce/{name}", (name,)


def _draws_of(
    key: str, errors: np.ndarray, names: tuple[str, ...], clean_error: np.ndarray
) -> np.ndarray:
    """Return the score of each draw; not finite where it is undefined."""
    if key.startswith(("ce/", "mce")):
        return ce_of_means(errors, names).mean(axis=-1)
    if key.startswith("relative_mce"):
        return relative_ce_of_means(errors, names, clean_error).mean(axis=-1)
    error: np.ndarray = errors.mean(axis=-1)
    if key.startswith("mean_error"):
        return error
    with np.errstate(divide="ignore", invalid="ignore"):
        kept: np.ndarray = (1 - error) / (1 - clean_error)
    return kept


def _middle(draws: np.ndarray, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: it is a fraction between 0 and 1, e.g. 0.95.")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _generator(seed: int, resamples: int) -> np.random.Generator:
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: at least 1 draw is needed; 1000 is usual.")
    return np.random.default_rng(seed)


def _resample_counts(images: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield for each draw how often each image is in it, (images,) int64."""
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, images, size=images), minlength=images)
