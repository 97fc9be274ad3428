"""Flip probability and top-5 distance on videos of a few frames."""

import inspect

import numpy as np
import pytest

from lska_jax.robustness.scores import perturbation
from lska_jax.robustness.scores.corruption_error import MissingCells

FIRST_FIVE = [0, 1, 2, 3, 4]
SWAPPED = [1, 0, 2, 3, 4]
SHIFTED = [5, 0, 1, 2, 3]
OTHERS = [5, 6, 7, 8, 9]


def distance(*frames, noise=False):
    return perturbation.top5_distances(np.asarray([frames]), noise=noise).mean()


def test_a_frame_flips_against_the_one_before_it():
    # 1 -> 2 flips once in three steps; the second video never does.
    predictions = np.asarray([[1, 2, 2, 2], [3, 3, 3, 3]])
    flips = perturbation.flip_probabilities(predictions, noise=False)
    np.testing.assert_allclose(flips, [1 / 3, 0])


def test_a_noise_frame_flips_against_the_first():
    # All three noisy frames of the first video differ from the clean one.
    predictions = np.asarray([[1, 2, 2, 2], [3, 3, 3, 3]])
    np.testing.assert_allclose(perturbation.flip_probabilities(predictions, noise=True), [1, 0])


def test_the_noise_perturbations_are_those_whose_name_says_so():
    noisy = [name for name in perturbation.PERTURBATIONS if perturbation.is_noise(name)]
    assert noisy == ["gaussian_noise", "shot_noise"]
    assert len(perturbation.PERTURBATIONS) == 10


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (FIRST_FIVE, FIRST_FIVE, 0),
        # Ranks 2, 1, 3, 4, 5: two classes off by one.
        (FIRST_FIVE, SWAPPED, 2),
        # Ranks 2, 3, 4, 5 and beyond: five classes off by one, the last to "6".
        (FIRST_FIVE, SHIFTED, 5),
        # The other way the class 5 falls from 1 to "6" and four rise by one: the distance has a
        # direction.
        (SHIFTED, FIRST_FIVE, 9),
        # 5 + 4 + 3 + 2 + 1.
        (FIRST_FIVE, OTHERS, 15),
    ],
)
def test_top5_distance_counts_ranks(first, second, expected):
    assert distance(first, second) == expected


def test_top5_distance_compares_with_the_frame_before_or_the_first():
    assert distance(FIRST_FIVE, SWAPPED, FIRST_FIVE) == (2 + 2) / 2
    assert distance(FIRST_FIVE, SWAPPED, FIRST_FIVE, noise=True) == (2 + 0) / 2


def test_top5_distance_is_the_papers_double_sum():
    rng = np.random.default_rng(0)
    rankings = np.stack([[rng.permutation(12) for _ in range(4)] for _ in range(5)])
    expected = []
    for video in rankings:
        steps = []
        for before, after in zip(video[:-1], video[1:], strict=True):
            total = 0
            for i in range(1, 6):
                rank = after.tolist().index(before[i - 1]) + 1
                total += sum(1 <= j - 1 <= 5 for j in range(min(i, rank) + 1, max(i, rank) + 1))
            steps.append(total)
        expected.append(sum(steps) / len(steps))
    distances = perturbation.top5_distances(rankings[..., :5], noise=False)
    np.testing.assert_allclose(distances, expected)


def test_the_mean_over_perturbations_needs_all_ten():
    values = {name: i / 10 for i, name in enumerate(perturbation.PERTURBATIONS)}
    mean = perturbation.mean_over_perturbations(values, score="flip probability")
    assert mean == pytest.approx(0.45)
    with_validation = values | {"spatter": 1.0}
    assert perturbation.mean_over_perturbations(with_validation, score="flip probability") == mean
    del values["tilt"]
    hole = perturbation.mean_over_perturbations(values, score="flip probability")
    assert isinstance(hole, MissingCells)
    assert str(hole) == "no mean flip probability (10 perturbations): 1 missing (tilt)"


def test_a_perturbation_without_a_value_is_left_out_not_nan():
    with pytest.raises(ValueError, match="T5D of tilt is nan.*Leave"):
        perturbation.mean_over_perturbations({"tilt": float("nan")}, score="T5D")


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.zeros((0, 3), int), "at least one video"),
        (np.zeros((2, 1), int), "a single frame cannot flip"),
        (np.zeros(3, int), "2 axes are needed"),
        (np.full((1, 2), 1000), "1000, which is outside the label set 0 to 999"),
        (np.zeros((1, 2)), "float64: class indices are integers"),
    ],
)
def test_what_is_no_video_is_refused(predictions, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(perturbation.flip_probabilities)(predictions, noise=False)


@pytest.mark.parametrize(
    ("top5", "message"),
    [
        (np.zeros((1, 2, 4), int) + np.arange(4), "five most likely"),
        (np.zeros((1, 2, 5), int), "one class twice"),
        (np.zeros((1, 1, 5), int) + np.arange(5), "single frame"),
        (np.zeros((1, 2, 5), int) - np.arange(5), "outside the label set"),
    ],
)
def test_what_is_no_top5_is_refused(top5, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(perturbation.top5_distances)(top5, noise=False)
