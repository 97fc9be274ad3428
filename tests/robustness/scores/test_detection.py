"""Average precision by hand and against scikit-learn."""

import inspect
import math

import numpy as np
import pytest

from lska_jax.robustness.scores import detection


def test_aupr_of_four_images():
    # By rising confidence: 0.1 unknown, 0.3 known, 0.6 unknown, 0.9 known. Half of the recall comes
    # at precision 1, the other half at 2/3.
    aupr = detection.aupr_out(np.asarray([0.6, 0.1]), np.asarray([0.3, 0.9]))
    assert aupr == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_images_of_equal_confidence_pass_together():
    # One threshold, at which everything is called unknown: precision 1 of 3.
    assert detection.aupr_out(np.asarray([0.5]), np.asarray([0.5, 0.5])) == pytest.approx(1 / 3)


def test_a_perfect_detector_scores_one():
    assert detection.aupr_out(np.asarray([0.1, 0.2]), np.asarray([0.3, 0.4])) == 1


def test_a_constant_model_scores_the_share_of_unknown_images():
    assert detection.aupr_out(np.full(20, 0.7), np.full(80, 0.7)) == pytest.approx(0.2)


@pytest.mark.parametrize("levels", [3, 20, 10**6], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_average_precision_equals_scikit_learns(levels, dtype):
    # Not at the top of the file: it takes a second, in each process that collects tests.
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(levels)
    for count in (2, 7, 300):
        score = (rng.integers(0, levels, count) / levels).astype(dtype)
        is_positive = rng.random(count) < 0.3
        is_positive[0] = True
        expected = average_precision_score(is_positive, score)
        assert detection.average_precision(score, is_positive) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("score", "is_positive", "message"),
    [
        ([], [], "No images"),
        ([0.1], [1, 0], "Lengths differ"),
        ([0.1, math.nan], [1, 0], "1 NaN of 2"),
        ([0.1, 0.2], [0, 0], "no positives"),
        ([0.1, 0.2], [0, 3], "holds 3"),
    ],
)
def test_scores_without_a_precision_are_refused(score, is_positive, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(detection.average_precision)(
            np.asarray(score, float), np.asarray(is_positive, int)
        )


def test_each_side_needs_images_with_probabilities():
    some, none = np.asarray([0.5]), np.asarray([], float)
    with pytest.raises(ValueError, match="confidence_out is empty"):
        detection.aupr_out(none, some)
    with pytest.raises(ValueError, match="confidence_in is empty"):
        detection.aupr_out(some, none)
    with pytest.raises(ValueError, match="confidence_in holds 7.0"):
        detection.aupr_out(some, np.asarray([7.0]))
