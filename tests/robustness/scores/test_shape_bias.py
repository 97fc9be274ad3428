"""Shape bias and the decision between 16 classes, by hand."""

import inspect
import itertools

import numpy as np
import pytest

from lska_jax.robustness.scores import shape_bias as sb
from lska_jax.robustness.scores.shape_bias import ShapeBias
from lska_jax.robustness.sets.label_sets import shape_classes

# Follows shape, texture, shape and neither; the last stimulus has no conflict.
SHAPES = np.asarray([0, 0, 1, 2, 1])
TEXTURES = np.asarray([1, 2, 0, 1, 1])
DECISIONS = np.asarray([0, 2, 1, 0, 1])


def test_shape_bias_is_the_share_of_shape_among_the_decided():
    counts = sb.shape_bias(DECISIONS, SHAPES, TEXTURES, num_classes=3)
    assert counts == ShapeBias(shape_correct=2, texture_correct=1, counted=4)
    assert counts.bias == pytest.approx(2 / 3)
    assert counts.decided_fraction == pytest.approx(3 / 4)


def test_shape_bias_of_each_class_is_over_stimuli_of_its_shape():
    classes = sb.shape_bias_per_class(DECISIONS, SHAPES, TEXTURES, num_classes=3)
    assert classes == (ShapeBias(1, 1, 2), ShapeBias(1, 0, 1), ShapeBias(0, 0, 1))
    assert [counts.bias for counts in classes] == [0.5, 1.0, None]
    assert [counts.decided_fraction for counts in classes] == [1.0, 1.0, 0.0]


def test_of_1280_stimuli_1200_count_and_75_of_each_shape():
    pairs = [*itertools.product(range(16), range(16))] * 5
    shapes, textures = np.asarray(pairs).T
    assert sb.shape_bias(shapes, shapes, textures) == ShapeBias(1200, 0, 1200)
    assert sb.shape_bias(textures, shapes, textures) == ShapeBias(0, 1200, 1200)
    classes = sb.shape_bias_per_class(shapes, shapes, textures)
    assert classes == (ShapeBias(75, 0, 75),) * 16


def test_a_constant_model_follows_shape_as_often_as_texture():
    shapes, textures = np.asarray([*itertools.product(range(16), range(16))]).T
    counts = sb.shape_bias(np.full(256, 5), shapes, textures)
    # 15 of 240 show class 5 as shape, 15 as texture.
    assert (counts.bias, counts.decided_fraction) == (0.5, 30 / 240)


def test_without_a_decision_there_is_no_bias_and_without_conflict_no_fraction():
    assert ShapeBias(0, 0, 3).bias is None
    assert ShapeBias(0, 0, 3).decided_fraction == 0
    same = np.asarray([1, 2])
    counts = sb.shape_bias(same, same, same)
    assert (counts.counted, counts.bias, counts.decided_fraction) == (0, None, None)


def test_the_decision_takes_the_mean_of_a_group_not_its_sum():
    groups = {"one": np.asarray([0]), "three": np.asarray([1, 2, 3])}
    probabilities = np.asarray([[0.3, 0.2, 0.2, 0.3], [0.1, 0.3, 0.3, 0.3]])
    # Means 0.3 and 0.7 / 3, then 0.1 and 0.3.
    np.testing.assert_array_equal(sb.sixteen_class_decision(probabilities, groups), [0, 1])


def test_among_equals_the_first_group_is_decided():
    groups = {"a": np.asarray([3]), "b": np.asarray([0, 1])}
    assert sb.sixteen_class_decision(np.full((1, 4), 0.25), groups).tolist() == [0]


def test_each_imagenet_class_decides_for_the_shape_that_it_belongs_to():
    groups = shape_classes()
    for number, labels in enumerate(groups.values()):
        decisions = sb.sixteen_class_decision(np.eye(1000, dtype=np.float32)[labels], groups)
        assert (decisions == number).all()


@pytest.mark.parametrize(
    ("decisions", "shapes", "message"),
    [
        ([], [], "No images"),
        ([0, 1], [0], "Lengths differ"),
        ([16], [0], "decisions holds 16, which is outside the label set 0 to 15"),
        ([0], [-1], "shapes holds -1"),
        ([0.5], [0], "class indices are integers"),
    ],
)
def test_decisions_outside_the_sixteen_are_refused(decisions, shapes, message):
    dtype = float if decisions == [0.5] else int
    shapes = np.asarray(shapes, int)
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(sb.cue_outcomes)(np.asarray(decisions, dtype), shapes, shapes)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.zeros((0, 4)), "at least one image"),
        (np.zeros(4), "at least one image"),
        (np.full((1, 4), np.nan), "4 NaN of 4"),
        (np.full((1, 4), 2.0), "outside"),
        (np.full((1, 4), 0.5), "sums to 2.0"),
    ],
)
def test_what_is_no_softmax_is_refused(probabilities, message):
    groups = {"a": np.asarray([0])}
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(sb.sixteen_class_decision)(probabilities, groups)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "No groups"),
        ({"a": np.asarray([], int)}, "'a' has no classes"),
        ({"a": np.asarray([4])}, "'a' holds 4, which is outside the label set 0 to 3"),
    ],
)
def test_groups_of_other_classes_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        sb.sixteen_class_decision(np.full((1, 4), 0.25), groups)
