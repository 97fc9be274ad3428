"""Shape bias, by hand."""

import inspect
import itertools

import numpy as np
import pytest

from lska_jax.robustness.scores import shape_bias as sb
from lska_jax.robustness.scores.shape_bias import ShapeBias

# Follows shape, texture, shape and neither; the last stimulus has no conflict.
SHAPES = np.asarray([0, 0, 1, 2, 1])
TEXTURES = np.asarray([1, 2, 0, 1, 1])
DECISIONS = np.asarray([0, 2, 1, 0, 1])


def count_all(decisions, shapes, textures, *, num_classes=16) -> ShapeBias:
    """Return the counts of all shapes together."""
    classes = sb.shape_bias_per_class(decisions, shapes, textures, num_classes=num_classes)
    return ShapeBias(*np.sum(classes, axis=0).tolist())


def test_shape_bias_is_the_share_of_shape_among_the_decided():
    counts = count_all(DECISIONS, SHAPES, TEXTURES, num_classes=3)
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
    assert count_all(shapes, shapes, textures) == ShapeBias(1200, 0, 1200)
    assert count_all(textures, shapes, textures) == ShapeBias(0, 1200, 1200)
    classes = sb.shape_bias_per_class(shapes, shapes, textures)
    assert classes == (ShapeBias(75, 0, 75),) * 16


def test_a_constant_model_follows_shape_as_often_as_texture():
    shapes, textures = np.asarray([*itertools.product(range(16), range(16))]).T
    counts = count_all(np.full(256, 5), shapes, textures)
    # 15 of 240 show class 5 as shape, 15 as texture.
    assert (counts.bias, counts.decided_fraction) == (0.5, 30 / 240)


def test_without_a_decision_there_is_no_bias_and_without_conflict_no_fraction():
    assert ShapeBias(0, 0, 3).bias is None
    assert ShapeBias(0, 0, 3).decided_fraction == 0
    same = np.asarray([1, 2])
    counts = count_all(same, same, same)
    assert (counts.counted, counts.bias, counts.decided_fraction) == (0, None, None)


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
