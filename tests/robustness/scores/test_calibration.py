"""Calibration scores on images that can be counted on fingers."""

import inspect
import math

import numpy as np
import pytest

from lska_jax.robustness.scores import calibration

CONFIDENCE = np.asarray([0.9, 0.3, 0.6, 0.8, 0.2])
CORRECT = np.asarray([True, False, True, False, True])


def rms(confidence, correct, **bins):
    return calibration.calibration_scores(confidence, correct, **bins)["rms_calibration_error"]


def published_rms(confidence, correct, **bins):
    scores = calibration.calibration_scores(confidence, correct, **bins)
    return scores["rms_calibration_error_published"]


def ece(confidence, correct, **bins):
    return calibration.calibration_scores(confidence, correct, **bins)["ece"]


def aurra(confidence, correct):
    return calibration.calibration_scores(confidence, correct)["aurra"]


def test_rms_calibration_error_over_bins_of_two():
    # Sorted: 0.2 right, 0.3 wrong | 0.6 right, 0.8 wrong, 0.9 right: the last bin takes the rest.
    # Gaps 0.5 - 0.25 = 0.25 and 2/3 - 2.3/3 = -0.1.
    error = rms(CONFIDENCE, CORRECT, bin_size=2)
    assert error == pytest.approx(math.sqrt(2 / 5 * 0.0625 + 3 / 5 * 0.01))


def test_rms_calibration_error_of_the_published_code_skips_the_most_confident_bin():
    error = published_rms(CONFIDENCE, CORRECT, bin_size=2)
    assert error == pytest.approx(math.sqrt(2 / 5 * 0.0625))


def test_without_a_second_bin_the_published_code_has_nothing_left():
    assert published_rms(CONFIDENCE, CORRECT, bin_size=3) is None


def test_fewer_images_than_a_bin_make_one_bin():
    # Accuracy 3/5, confidence 2.8/5; nothing but the most confident bin.
    assert published_rms(CONFIDENCE, CORRECT) is None
    assert rms(CONFIDENCE, CORRECT) == pytest.approx(0.04)


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
    error = rms(confidence, correct)
    assert error == pytest.approx(math.sqrt(total))


def test_ece_over_two_bins():
    # 2/5 x |1/2 - 0.25| + 3/5 x |2/3 - 2.3/3|.
    error = ece(CONFIDENCE, CORRECT, num_bins=2)
    assert error == pytest.approx(0.16)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 0.5 is in (0, 0.5], so its gap 0.5 and that of 0.6 do not cancel: (0.5 + 0.6) / 2.
    confidence, correct = np.asarray([0.5, 0.6]), np.asarray([True, False])
    error = ece(confidence, correct, num_bins=2)
    assert error == pytest.approx(0.55)


def test_an_edge_is_an_edge_in_float32_too():
    # float32's 0.2 is above float64's; it is the edge of (0, 0.2] all the same: (0.8 + 0.3) / 2.
    confidence, correct = np.asarray([0.2, 0.3], np.float32), np.asarray([1, 0])
    error = ece(confidence, correct, num_bins=5)
    assert error == pytest.approx(0.55)


def test_confidences_of_zero_and_one_have_a_bin():
    confidence, correct = np.asarray([0.0, 1.0]), np.asarray([0, 1])
    assert ece(confidence, correct) == 0


def test_aurra_is_the_mean_accuracy_of_the_most_confident():
    # Accuracies 1, 1/2, 2/3, 1/2 on the first 1, 2, 3, 4 of four images.
    confidence, correct = np.asarray([0.9, 0.8, 0.6, 0.3]), np.asarray([1, 0, 1, 0])
    assert aurra(confidence, correct) == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4)


def test_aurra_shares_accuracy_among_equal_confidences():
    # Both orders of the two images at 0.5 are as good: 1/2 of one is right, then 1 of two.
    confidence = np.asarray([0.5, 0.5])
    assert aurra(confidence, np.asarray([1, 0])) == pytest.approx(0.5)
    assert aurra(confidence, np.asarray([0, 1])) == pytest.approx(0.5)


def test_a_model_that_is_sure_and_right_is_perfect():
    confidence, correct = np.ones(300, np.float32), np.ones(300, bool)
    assert rms(confidence, correct) == 0
    assert ece(confidence, correct) == 0
    assert aurra(confidence, correct) == 1


def test_a_constant_model_is_calibrated_whatever_the_order_of_the_images():
    # One class of ten, always, with confidence 0.1; images sorted by class as folders are.
    confidence, correct = np.full(1000, 0.1), np.arange(1000) < 100
    # Sums of 1000 terms of 0.1 are off by a few units in the last place.
    assert rms(confidence, correct) == pytest.approx(0, abs=1e-12)
    assert ece(confidence, correct) == pytest.approx(0, abs=1e-12)
    assert aurra(confidence, correct) == pytest.approx(0.1)


def test_the_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(1)
    confidence = rng.integers(1, 8, 450) / 8
    correct = rng.random(450) < confidence
    order = rng.permutation(450)
    scores = calibration.calibration_scores(confidence, correct)
    shuffled = calibration.calibration_scores(confidence[order], correct[order])
    assert shuffled == pytest.approx(scores)


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
def test_what_no_model_can_say_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(calibration.calibration_scores)(
            np.asarray(confidence, float), np.asarray(correct, int)
        )
