"""Is an image of an unknown class told by its low confidence: ImageNet-O."""

import numpy as np
from jaxtyping import Float, Shaped

from lska_jax.robustness.scores.checks import (
    check_lengths,
    check_outcomes,
    check_probabilities,
)


def aupr_out(
    confidence_out: Float[np.ndarray, " out"], confidence_in: Float[np.ndarray, " known"]
) -> float:
    """Return AUPR of ImageNet-O: average precision with unknown images as the positives.

    The anomaly score of an image is minus its maximum softmax probability over the 200 classes of
    ImageNet-O. Known images are those of the ImageNet validation set in the same 200 classes. A
    fraction in (0, 1], higher is better; by chance the share of unknown images among all. Source:
    Hendrycks et al., "Natural Adversarial Examples", arXiv 1907.07174, section 4, and
    github.com/hendrycks/natural-adv-examples, eval_many_models.py.

    Args:
      confidence_out: (M,) float in [0, 1], of ImageNet-O.
      confidence_in: (K,) float in [0, 1], of the validation images.

    Raises:
      ValueError: no images on one of the sides; NaN or a value outside [0, 1].
    """
    check_lengths(confidence_out=confidence_out)
    check_lengths(confidence_in=confidence_in)
    check_probabilities("confidence_out", confidence_out)
    check_probabilities("confidence_in", confidence_in)
    anomaly = -np.concatenate([confidence_out, confidence_in]).astype(np.float64)
    is_positive = np.arange(anomaly.size) < confidence_out.size
    return average_precision(anomaly, is_positive)


def average_precision(
    score: Float[np.ndarray, " images"], is_positive: Shaped[np.ndarray, " images"]
) -> float:
    """Return AP = sum_n (R_n - R_(n-1)) P_n over the distinct thresholds, from the highest.

    P_n and R_n are precision and recall where everything at or above the nth threshold is called
    positive. Images with equal scores pass a threshold together, so their order does not matter;
    nothing is interpolated. The definition of scikit-learn's ``average_precision_score``.

    Args:
      score: (N,) float, higher is more positive; any finite values.
      is_positive: (N,) bool or 0 and 1.

    Raises:
      ValueError: lengths differ, no images, no positives, NaN.
    """
    check_lengths(score=score, is_positive=is_positive)
    check_outcomes("is_positive", is_positive)
    if np.isnan(score).any():
        raise ValueError(
            f"score has {int(np.isnan(score).sum())} NaN of {score.size}: NaN has no rank. Find "
            "the images whose logits were not finite."
        )
    positives = np.asarray(is_positive, dtype=bool)
    if not positives.any():
        raise ValueError("is_positive has no positives: recall is not defined without any.")
    values, threshold = np.unique(-score, return_inverse=True)
    num_positive = np.bincount(threshold[positives], minlength=values.size)
    num_negative = np.bincount(threshold[~positives], minlength=values.size)
    return float(average_precision_of_counts(num_positive[None], num_negative[None])[0])


def average_precision_of_counts(
    num_positive: Shaped[np.ndarray, "draws thresholds"],
    num_negative: Shaped[np.ndarray, "draws thresholds"],
) -> Float[np.ndarray, " draws"]:
    """Return ``average_precision`` of several draws from how many images have each score.

    Args:
      num_positive: (R, T) positives at each distinct score, the highest first; at least one a draw.
      num_negative: (R, T) negatives at the same scores.

    Returns:
      (R,) float64.
    """
    num_true = np.cumsum(num_positive, axis=1)
    num_called = num_true + np.cumsum(num_negative, axis=1)
    # A threshold that no drawn image has adds no recall, whatever its precision.
    precision = num_true / np.maximum(num_called, 1)
    average: np.ndarray = np.sum(num_positive * precision, axis=1) / num_true[:, -1]
    return average
