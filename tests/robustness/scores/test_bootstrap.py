"""Intervals: known cases, the same images in all cells, and how often they hold the truth.

A coverage of 95 % is estimated from n seeded runs with a standard error of sqrt(0.95 x 0.05 / n):
the share may be three of these off, and 2 % lower still, since the percentile bootstrap falls short
by about that at these sizes.
"""

import inspect
import math

import numpy as np
import pytest

from lska_jax.robustness.scores import bootstrap, calibration, detection
from lska_jax.robustness.scores.bootstrap import Interval
from lska_jax.robustness.scores.corruption_error import MissingCells, corruption_scores
from lska_jax.robustness.scores.reference_errors import ALEXNET_ERRORS, CORRUPTIONS, SEVERITIES
from lska_jax.robustness.scores.shape_bias import ShapeBias

RUNS = 300


def assert_covered(truth, intervals):
    share = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    standard_error = math.sqrt(0.95 * 0.05 / len(intervals))
    assert 0.95 - 0.02 - 3 * standard_error < share < 0.95 + 3 * standard_error


def cells_of(outcomes, corruptions=CORRUPTIONS):
    """Return the same outcomes in every cell."""
    return {(name, s): outcomes for name in corruptions for s in SEVERITIES}


@pytest.mark.parametrize("values", [[1], [0], [0.25], [1] * 50, [0.25] * 50], ids=str)
def test_images_that_agree_leave_no_width(values):
    interval = bootstrap.bootstrap_mean(np.asarray(values), seed=0)
    assert interval == Interval(values[0], values[0])


def test_a_seed_fixes_the_interval():
    values = np.arange(100) % 3 == 0
    first, again, other = (bootstrap.bootstrap_mean(values, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_binomial_draws_are_those_of_resampled_images():
    correct = np.arange(40) < 12
    exact = bootstrap.bootstrap_mean(correct, seed=0, resamples=5000)
    drawn = bootstrap.bootstrap_scores(
        lambda outcomes: {"top1": float(outcomes.mean())}, correct, seed=1, resamples=5000
    )["top1"]
    # Quantiles of 5000 draws may differ by one of the 40 steps.
    np.testing.assert_allclose(drawn, exact, atol=1 / 40 + 1e-12)


def test_the_mean_of_any_values_has_the_width_of_its_standard_error():
    values = np.random.default_rng(0).normal(size=2000)
    low, high = bootstrap.bootstrap_mean(values, seed=0)
    # The 2.5 % quantiles of 1000 draws are known to about 5 %.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.15)
    assert low < values.mean() < high


def test_intervals_of_accuracy_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [bootstrap.bootstrap_mean(rng.random(200) < 0.3, seed=run) for run in range(RUNS)]
    assert_covered(0.3, intervals)


@pytest.mark.slow
def test_intervals_of_mce_hold_the_truth_though_cells_share_their_images():
    # An image has one difficulty, and is wrong in the cells whose error is above it.
    errors = {(name, s): ALEXNET_ERRORS[name] * s / 6 for name in CORRUPTIONS for s in SEVERITIES}
    truth = corruption_scores(errors, clean_error=0.1)
    rng = np.random.default_rng(0)
    found = []
    for run in range(RUNS):
        difficulty = rng.random(150)
        correct = {cell: difficulty > error for cell, error in errors.items()}
        found.append(
            bootstrap.bootstrap_corruption_scores(
                correct, clean_correct=difficulty > 0.1, seed=run, resamples=300
            )
        )
    for name in ("mce_15", "relative_mce_15", "mean_error", "retention_15", "ce/fog"):
        assert_covered(truth[name], [intervals[name] for intervals in found])


def test_cells_with_the_same_images_are_no_more_certain_than_one_of_them():
    correct = np.random.default_rng(0).random(1000) < 0.6
    low, high = bootstrap.bootstrap_corruption_scores(cells_of(correct), seed=0)["mean_error"]
    # As for one cell, and not sqrt(75) times narrower; quantiles of 1000 draws are good to 15 %.
    expected = 2 * 1.96 * math.sqrt(0.6 * 0.4 / 1000)
    assert high - low == pytest.approx(expected, rel=0.15)


def test_the_scores_of_imagenet_c_follow_their_definitions_in_every_draw():
    correct = cells_of(np.arange(500) % 5 != 0)
    intervals = bootstrap.bootstrap_corruption_scores(
        correct, clean_correct=np.arange(500) % 5 != 0, seed=0
    )
    error = intervals["mean_error"]
    # All cells agree, so CE is the error over AlexNet's, and what is right clean stays right.
    np.testing.assert_allclose(intervals["ce/fog"], np.asarray(error) / 0.819)
    scale = np.mean([1 / ALEXNET_ERRORS[name] for name in CORRUPTIONS])
    np.testing.assert_allclose(intervals["mce_15"], np.asarray(error) * scale)
    np.testing.assert_allclose(intervals["retention_15"], (1, 1))
    np.testing.assert_allclose(intervals["relative_mce_15"], (0, 0), atol=1e-12)


def test_intervals_have_the_names_and_holes_of_the_scores():
    correct = cells_of(np.asarray([1, 0, 1]))
    del correct["fog", 2]
    intervals = bootstrap.bootstrap_corruption_scores(
        correct, clean_correct=np.asarray([1, 1, 0]), seed=0
    )
    scores = corruption_scores({cell: 1 / 3 for cell in correct}, clean_error=1 / 3)
    assert intervals.keys() == scores.keys()
    for name, score in scores.items():
        if isinstance(score, MissingCells):
            assert intervals[name] == score
        else:
            assert isinstance(intervals[name], Interval)


def test_a_set_without_any_cell_has_holes_only():
    intervals = bootstrap.bootstrap_corruption_scores({}, seed=0)
    assert all(isinstance(interval, MissingCells) for interval in intervals.values())


def test_a_model_that_is_wrong_on_clean_images_has_no_retention():
    wrong = np.zeros(4, bool)
    intervals = bootstrap.bootstrap_corruption_scores(cells_of(wrong), clean_correct=wrong, seed=0)
    assert intervals["retention_15"] is None
    assert intervals["mean_error"] == Interval(1, 1)


def test_scores_of_confidences_have_intervals_around_them():
    rng = np.random.default_rng(0)
    confidence = rng.random(400).astype(np.float32)
    correct = rng.random(400) < confidence
    values = calibration.calibration_scores(confidence, correct)
    intervals = bootstrap.bootstrap_scores(
        calibration.calibration_scores, confidence, correct, seed=0
    )
    assert intervals.keys() == values.keys()
    # Calibrated by construction: draws that were not freed of their bias would lie above the score.
    assert all(intervals[name].low < values[name] < intervals[name].high for name in values)
    assert all(0 <= low < high <= 1 for low, high in intervals.values())


def test_an_undefined_score_has_no_interval_and_undefined_draws_are_left_out():
    def shares(numerator, denominator):
        total = denominator.sum()
        return {"share": float(numerator.sum() / total) if total else None}

    ones, none = np.ones(3), np.zeros(3)
    assert bootstrap.bootstrap_scores(shares, ones, none, seed=0) == {"share": None}
    # Draws without the only image that counts are undefined; in all others the ratio is 1.
    some = np.asarray([0.0, 0.0, 1.0])
    assert bootstrap.bootstrap_scores(shares, some, some, seed=0) == {"share": Interval(1, 1)}


@pytest.mark.slow
def test_intervals_of_aupr_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth = detection.aupr_out(rng.beta(2, 3, 2 * 10**5), rng.beta(3, 2, 4 * 10**5))
    intervals = [
        bootstrap.bootstrap_aupr_out(
            rng.beta(2, 3, 300), rng.beta(3, 2, 600), seed=run, resamples=200
        )
        for run in range(RUNS // 3)
    ]
    assert_covered(truth, intervals)


def test_intervals_of_shape_bias_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    found = [
        bootstrap.bootstrap_shape_bias(
            ShapeBias(*map(int, rng.multinomial(300, [0.2, 0.4, 0.4])[:2]), 300), seed=run
        )
        for run in range(RUNS)
    ]
    assert_covered(1 / 3, [intervals.bias for intervals in found])
    assert_covered(0.6, [intervals.decided_fraction for intervals in found])


def test_shape_bias_without_decisions_is_undefined_and_not_zero():
    assert bootstrap.bootstrap_shape_bias(ShapeBias(0, 0, 9), seed=0) == (None, Interval(0, 0))
    assert bootstrap.bootstrap_shape_bias(ShapeBias(0, 0, 0), seed=0) == (None, None)
    assert bootstrap.bootstrap_shape_bias(ShapeBias(1, 0, 1), seed=0) == ((1, 1), (1, 1))


def test_joint_means_are_over_the_same_images_in_every_row():
    values = np.stack([np.arange(20), 2 * np.arange(20)]).astype(np.uint8)
    means = bootstrap.joint_means(values, seed=0, resamples=120)
    assert means.shape == (120, 2)
    np.testing.assert_array_equal(means[:, 1], 2 * means[:, 0])
    # Whole numbers lose nothing in float32.
    again = bootstrap.joint_means(values.astype(np.float64), seed=0, resamples=120)
    np.testing.assert_allclose(means, again, rtol=1e-15)


def test_input_that_has_no_interval_is_refused():
    some = np.asarray([1, 0])
    with pytest.raises(ValueError, match="No images"):
        bootstrap.bootstrap_mean(np.asarray([]), seed=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        bootstrap.bootstrap_mean(np.asarray([1.0, math.nan]), seed=0)
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap.bootstrap_mean(some, seed=0, resamples=0)
    with pytest.raises(ValueError, match="level=95.0: it is a fraction"):
        bootstrap.bootstrap_mean(some, seed=0, level=95.0)
    with pytest.raises(ValueError, match="counts are at least 0"):
        bootstrap.bootstrap_shape_bias(ShapeBias(3, 3, 5), seed=0)
    with pytest.raises(ValueError, match=r"values has shape \(0, 2\)"):
        bootstrap.joint_means(np.zeros((0, 2)), seed=0)


def test_cells_of_other_images_are_refused():
    correct = cells_of(np.asarray([1, 0]))
    corruption_intervals = inspect.unwrap(bootstrap.bootstrap_corruption_scores)
    with pytest.raises(ValueError, match="Lengths differ.*fog/1"):
        corruption_intervals(correct | {("fog", 1): np.asarray([1])}, seed=0)
    with pytest.raises(ValueError, match="fog/1 holds 2: only 1"):
        corruption_intervals(correct | {("fog", 1): np.asarray([1, 2])}, seed=0)
    with pytest.raises(ValueError, match="no corruption 'sparkles'"):
        corruption_intervals(correct | {("sparkles", 1): np.asarray([1, 0])}, seed=0)
