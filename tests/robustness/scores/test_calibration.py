"""Calibration scores on images that can be counted on fingers."""

import inspect
import math

import numpy as np
import pytest

from lska_jax.robustness.scores import calibration

CONFIDENCE = np.asarray([0.9, 0.3, 0.6, 0.8, 0.2])
CORRECT = np.asarray([True, False, True, False, True])
SCORES = (
    calibration.rms_calibration_error,
    calibration.expected_calibration_error,
    calibration.aurra,
    calibration.calibration_scores,
)


def test_rms_calibration_error_over_bins_of_two():
    # Sorted: 0.2 right, 0.3 wrong | 0.6 right, 0.8 wrong, 0.9 right: the last bin takes the rest.
    # Gaps 0.5 - 0.25 = 0.25 and 2/3 - 2.3/3 = -0.1.
    error = calibration.rms_calibration_error(CONFIDENCE, CORRECT, bin_size=2)
    assert error == pytest.approx(math.sqrt(2 / 5 * 0.0625 + 3 / 5 * 0.01))


def test_rms_calibration_error_of_the_published_code_skips_the_most_confident_bin():
    error = calibration.rms_calibration_error(CONFIDENCE, CORRECT, bin_size=2, drop_last_bin=True)
    assert error == pytest.approx(math.sqrt(2 / 5 * 0.0625))


def test_without_a_second_bin_the_published_code_has_nothing_left():
    assert (
        calibration.rms_calibration_error(CONFIDENCE, CORRECT, bin_size=3, drop_last_bin=True)
        is None
    )


def test_fewer_images_than_a_bin_make_one_bin():
    # Accuracy 3/5, confidence 2.8/5.
    assert calibration.rms_calibration_error(CONFIDENCE, CORRECT) == pytest.approx(0.04)


def test_bins_of_equal_size_follow_the_published_cut():
    rng = np.random.default_rng(0)
    confidence = rng.permutation(np.linspace(0.01, 0.99, 250))
    correct = rng.random(250) < confidence**2
    order = np.argsort(confidence)
    total = 0.0
    for start, stop in ((0, 100), (100, 250)):
        chosen = order[start:stop]
        gap = sum(correct[chosen]) / len(chosen) - sum(confidence[chosen]) / len(chosen)
        total += len(chosen) / 250 * gap**2
    error = calibration.rms_calibration_error(confidence, correct)
    assert error == pytest.approx(math.sqrt(total))


def test_ece_over_two_bins():
    # 2/5 x |1/2 - 0.25| + 3/5 x |2/3 - 2.3/3|.
    error = calibration.expected_calibration_error(CONFIDENCE, CORRECT, num_bins=2)
    assert error == pytest.approx(0.16)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 0.5 is in (0, 0.5], so its gap 0.5 and that of 0.6 do not cancel: (0.5 + 0.6) / 2.
    confidence, correct = np.asarray([0.5, 0.6]), np.asarray([True, False])
    error = calibration.expected_calibration_error(confidence, correct, num_bins=2)
    assert error == pytest.approx(0.55)


def test_an_edge_is_an_edge_in_float32_too():
    # float32's 0.2 is above float64's; it is the edge of (0, 0.2] all the same: (0.8 + 0.3) / 2.
    confidence, correct = np.asarray([0.2, 0.3], np.float32), np.asarray([1, 0])
    error = calibration.expected_calibration_error(confidence, correct, num_bins=5)
    assert error == pytest.approx(0.55)


def test_confidences_of_zero_and_one_have_a_bin():
    confidence, correct = np.asarray([0.0, 1.0]), np.asarray([0, 1])
    assert calibration.expected_calibration_error(confidence, correct) == 0


def test_aurra_is_the_mean_accuracy_of_the_most_confident():
    # Accuracies 1, 1/2, 2/3, 1/2 on the first 1, 2, 3, 4 of four images.
    confidence, correct = np.asarray([0.9, 0.8, 0.6, 0.3]), np.asarray([1, 0, 1, 0])
    assert calibration.aurra(confidence, correct) == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4)


def test_aurra_shares_accuracy_among_equal_confidences():
    # Both orders of the two images at 0.5 are as good: 1/2 of one is right, then 1 of two.
    confidence = np.asarray([0.5, 0.5])
    assert calibration.aurra(confidence, np.asarray([1, 0])) == pytest.approx(0.5)
    assert calibration.aurra(confidence, np.asarray([0, 1])) == pytest.approx(0.5)


def test_negative_log_likelihood_is_a_mean_in_nats():
    # -log(1/2) and -log(1/4).
    nll = calibration.negative_log_likelihood(np.log([0.5, 0.25]))
    assert nll == pytest.approx(1.5 * math.log(2))


def test_a_label_of_probability_zero_makes_the_likelihood_infinite():
    assert calibration.negative_log_likelihood(np.asarray([0.0, -np.inf])) == math.inf


def test_a_model_that_is_sure_and_right_is_perfect():
    confidence, correct = np.ones(300, np.float32), np.ones(300, bool)
    assert calibration.rms_calibration_error(confidence, correct) == 0
    assert calibration.expected_calibration_error(confidence, correct) == 0
    assert calibration.aurra(confidence, correct) == 1
    nll = calibration.negative_log_likelihood(np.zeros(300))
    assert nll == 0
    assert math.copysign(1, nll) == 1


def test_a_constant_model_is_calibrated_whatever_the_order_of_the_images():
    # One class of ten, always, with confidence 0.1; images sorted by class as folders are.
    confidence, correct = np.full(1000, 0.1), np.arange(1000) < 100
    # Sums of 1000 terms of 0.1 are off by a few units in the last place.
    assert calibration.rms_calibration_error(confidence, correct) == pytest.approx(0, abs=1e-12)
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(
        0, abs=1e-12
    )
    assert calibration.aurra(confidence, correct) == pytest.approx(0.1)


def test_all_scores_of_confidence_come_by_name():
    rng = np.random.default_rng(2)
    confidence = rng.random(250).astype(np.float32)
    correct = rng.random(250) < confidence
    assert calibration.calibration_scores(confidence, correct) == {
        "rms_calibration_error": calibration.rms_calibration_error(confidence, correct),
        "rms_calibration_error_published": calibration.rms_calibration_error(
            confidence, correct, drop_last_bin=True
        ),
        "ece": calibration.expected_calibration_error(confidence, correct),
        "aurra": calibration.aurra(confidence, correct),
    }
    few = calibration.calibration_scores(confidence[:199], correct[:199])
    assert few["rms_calibration_error_published"] is None


@pytest.mark.parametrize("score", SCORES)
def test_the_order_of_the_images_does_not_matter(score):
    rng = np.random.default_rng(1)
    confidence = rng.integers(1, 8, 450) / 8
    correct = rng.random(450) < confidence
    order = rng.permutation(450)
    assert score(confidence[order], correct[order]) == pytest.approx(score(confidence, correct))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "No images"),
        ([0.5], [1, 0], "Lengths differ"),
        ([[0.5]], [[1]], "one axis"),
        ([0.5, math.nan], [1, 0], "1 NaN of 2.*not finite"),
        ([1.5], [1], "1.5, which is outside.*not logits"),
        ([-0.5], [1], "-0.5, which is outside"),
        ([0.5], [2], "holds 2: only 1"),
    ],
)
def test_what_no_model_can_say_is_refused(score, confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(score)(np.asarray(confidence, float), np.asarray(correct, int))


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "No images"), ([math.nan], "1 NaN of 1"), ([0.1], "at most 0.*log_softmax")],
)
def test_what_is_no_log_probability_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        calibration.negative_log_likelihood(np.asarray(values, float))


def test_bins_have_a_size_and_a_number():
    with pytest.raises(ValueError, match="bin_size=0"):
        calibration.rms_calibration_error(CONFIDENCE, CORRECT, bin_size=0)
    with pytest.raises(ValueError, match="num_bins=0"):
        calibration.expected_calibration_error(CONFIDENCE, CORRECT, num_bins=0)
