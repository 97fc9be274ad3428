"""Does the model know when it is right: calibration error and AURRA.

Confidence is the maximum softmax probability, over the classes of the set: 200 for ImageNet-A and
-R. Images of equal confidence share their accuracy, so no score depends on the order of the images;
the published code leaves such ties to its sort.
"""

import numpy as np
from jaxtyping import Float, Shaped

from lska_jax.robustness.scores.checks import (
    check_lengths,
    check_outcomes,
    check_probabilities,
)

RMS_BIN_SIZE = 100
ECE_BINS = 15


def calibration_scores(
    confidence: Float[np.ndarray, " images"],
    correct: Shaped[np.ndarray, " images"],
    *,
    bin_size: int = RMS_BIN_SIZE,
    num_bins: int = ECE_BINS,
) -> dict[str, float | None]:
    """Return the scores of confidence by their names in the table of scores, sorting once.

    All are fractions in [0, 1]; lower is better but for "aurra".

    "rms_calibration_error": sqrt(sum_b n_b / N (accuracy_b - confidence_b)^2) over bins of equal
    size: the images are sorted by confidence and cut into bins of ``bin_size``; the last bin takes
    the remainder and has up to 2 ``bin_size`` - 1. Source: Hendrycks et al., "Natural Adversarial
    Examples", arXiv 1907.07174, section 4; adaptive bins as in Hendrycks et al., "Deep Anomaly
    Detection with Outlier Exposure", arXiv 1812.04606.

    "rms_calibration_error_published": the published code (calibration_tools.py of
    github.com/hendrycks/natural-adv-examples) leaves the last bin, the most confident images, out
    of the sum but not out of N. That gives a smaller number, for comparison with published ones;
    None where there is one bin only and nothing is left.

    "ece": sum_b n_b / N |accuracy_b - confidence_b| over bins of equal width. Bin m of M holds the
    confidences in ((m - 1) / M, m / M]; 0 is in the first. Source: Guo et al., "On Calibration of
    Modern Neural Networks", arXiv 1706.04599, equation 3, with 15 bins as there.

    "aurra": the area under the response rate accuracy curve, the mean over n = 1 to N of the
    accuracy on the n most confident images: a model that answers only where it is sure should be
    right there. Source: Hendrycks et al., arXiv 1907.07174, section 4.

    Args:
      confidence: (N,) float in [0, 1].
      correct: (N,) bool or 0 and 1.
      bin_size: images a bin of equal size, at least 1.
      num_bins: M, at least 1.

    Raises:
      ValueError: lengths differ, no images, NaN or a value outside [0, 1], an outcome that is not 0
        or 1.
    """
    ordered, accuracy = _by_confidence(confidence, correct)
    squares = _squares(ordered, accuracy, bin_size)
    published = float(np.sqrt(squares[:-1].sum())) if squares.size > 1 else None
    return {
        "rms_calibration_error": float(np.sqrt(squares.sum())),
        "rms_calibration_error_published": published,
        "ece": _ece(ordered, accuracy, _edges(num_bins, confidence.dtype)),
        "aurra": _aurra(accuracy),
    }


def _by_confidence(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences in ascending order, and beside each the accuracy of its equals."""
    check_lengths(confidence=confidence, correct=correct)
    check_probabilities("confidence", confidence)
    check_outcomes("correct", correct)
    order = np.argsort(confidence, kind="stable")
    values = confidence[order]
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    counts = np.diff(np.append(starts, values.size))
    accuracy = np.add.reduceat(correct[order].astype(np.float64), starts) / counts
    return values.astype(np.float64), np.repeat(accuracy, counts)


def _squares(ordered: np.ndarray, accuracy: np.ndarray, bin_size: int) -> np.ndarray:
    """Return each bin's n_b / N (accuracy_b - confidence_b)^2."""
    starts = np.arange(max(ordered.size // bin_size, 1)) * bin_size
    sizes = np.diff(np.append(starts, ordered.size))
    gaps = np.add.reduceat(accuracy - ordered, starts) / sizes
    squares: np.ndarray = sizes / ordered.size * gaps**2
    return squares


def _edges(num_bins: int, dtype: np.dtype) -> np.ndarray:
    """Return the edges between bins, in the confidences' own precision.

    0.2 in float32 is then an edge, and not a little above it.
    """
    return (np.arange(1, num_bins) / num_bins).astype(dtype)


def _ece(ordered: np.ndarray, accuracy: np.ndarray, edges: np.ndarray) -> float:
    ends = np.append(np.searchsorted(ordered, edges, side="right"), ordered.size)
    sums = np.append(0.0, np.cumsum(accuracy - ordered))[ends]
    return float(np.abs(np.diff(sums, prepend=0.0)).sum() / ordered.size)


def _aurra(accuracy: np.ndarray) -> float:
    num_right = np.cumsum(accuracy[::-1])
    return float(np.mean(num_right / np.arange(1, num_right.size + 1)))
