"""RoIAlign in both of its forms, against stored outputs and its definition."""

import functools
import math

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops import roi_align as module
from lska_jax.ops.roi_align import pyramid_levels, roi_align

FORMS = {"box by box": module._visit, "whole maps": module._multiply}


def relative_error(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def run(form, features, rois, *, scale, side, taps=0):
    """Return the result for boxes that begin with the number of their image, and its gradient."""
    images = rois[:, 0].astype(int)
    boxes = jnp.stack([jnp.asarray(rois[:, 1:])] * len(features))
    levels = jnp.zeros(boxes.shape[:2], jnp.int32)

    @jax.jit
    def call(features, cotangent):
        def align(features):
            found = FORMS[form]((features,), boxes, levels, (scale,), side, taps)
            return found[images, np.arange(len(images))]

        found, pull = jax.vjp(align, features)
        return found, pull(cotangent)[0]

    return call


SLOW_SIZES = [
    pytest.param(*size, marks=pytest.mark.slow) for size in ((14, 0.25), (7, 0.5), (14, 0.5))
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("side", "scale"), [(7, 0.25), *SLOW_SIZES])
def test_boxes_and_gradients_are_those_of_the_reference(form, side, scale):
    stored, name = golden_baselines.golden("dense/ops_roi_align"), f"{side}/{scale}"
    expected = stored[name]
    cotangent = stored.get(f"{name}/cotangent", np.zeros_like(expected))
    call = run(form, stored["features"], stored["rois"], scale=scale, side=side)
    found, gradient = call(stored["features"], cotangent)
    assert relative_error(found, expected) < 1e-5
    if scale == 0.25:
        assert relative_error(gradient, stored[f"{name}/feature_gradient"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_levels_of_a_pyramid_are_read_as_the_reference_reads_them(form):
    stored = golden_baselines.golden("dense/ops_roi_pyramid")
    boxes = jnp.asarray(stored["boxes"])[None]
    levels = pyramid_levels(boxes)
    np.testing.assert_array_equal(levels[0], stored["levels"])
    maps = tuple(jnp.asarray(stored[f"p{level}"]) for level in (2, 3, 4, 5))
    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    found = jax.jit(lambda maps: FORMS[form](maps, boxes, levels, scales, 7, 0))(maps)
    assert relative_error(found[0], stored["features"]) < 1e-5


def test_squares_take_their_level_by_the_rule_of_the_reference():
    stored = golden_baselines.golden("dense/ops_roi_pyramid")
    side = jnp.asarray(stored["rule/side"])
    boxes = jnp.stack([side * 0, side * 0, side, side], 1)
    np.testing.assert_array_equal(pyramid_levels(boxes), stored["rule/level"])


def by_definition(features, box, *, stride, side, taps):
    """Tap by tap, as the operation is defined."""
    height, width, channels = features.shape
    x1, y1, x2, y2 = (np.float64(corner) / stride - 0.5 for corner in box)
    counts = [taps or max(math.ceil(extent / side), 0) for extent in (y2 - y1, x2 - x1)]
    out = np.zeros((side, side, channels))
    for i in range(side):
        for j in range(side):
            for a in range(counts[0]):
                for b in range(counts[1]):
                    y = y1 + (i + (a + 0.5) / counts[0]) * (y2 - y1) / side
                    x = x1 + (j + (b + 0.5) / counts[1]) * (x2 - x1) / side
                    if not (-1 <= y <= height and -1 <= x <= width):
                        continue
                    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
                    low, left = int(y), int(x)
                    down, right = min(low + 1, height - 1), min(left + 1, width - 1)
                    top = features[low, left] * (1 - x + left) + features[low, right] * (x - left)
                    bottom = features[down, left] * (1 - x + left)
                    bottom = bottom + features[down, right] * (x - left)
                    out[i, j] += top * (1 - y + low) + bottom * (y - low)
    return out / max(counts[0] * counts[1], 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("taps", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_random_boxes_are_read_as_defined(form, taps):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 23, 37, 2)).astype(np.float32)
    # Long, flat, outside, tiny: boxes of many tiles and of many taps among them.
    corner = rng.uniform(-30, 130, (24, 2))
    boxes = np.concatenate([corner, corner + np.exp(rng.uniform(-1, 5.3, (24, 2)))], 1)
    rois = np.concatenate([np.zeros((24, 1)), boxes], 1).astype(np.float32)
    call = run(form, features, rois, scale=0.25, side=3, taps=taps)
    found, _ = call(features, np.zeros((24, 3, 3, 2), np.float32))
    expected = [by_definition(features[0], roi[1:], stride=4, side=3, taps=taps) for roi in rois]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_box_with_corners_in_reverse_is_read_backwards_with_given_taps_and_not_without(form):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(1, 23, 37, 2)).astype(np.float32)
    boxes = [(90, 20, 10, 70), (20, 80, 120, 10), (140, 85, -20, -10)]
    rois = np.array([(0, *box) for box in boxes], np.float32)
    for taps in (2, 0):
        call = run(form, features, rois, scale=0.25, side=3, taps=taps)
        found, _ = call(features, np.zeros((3, 3, 3, 2), np.float32))
        expected = [by_definition(features[0], box, stride=4, side=3, taps=taps) for box in boxes]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)
        assert np.any(found) == (taps > 0)


@pytest.mark.slow
def test_a_mapped_call_is_that_of_a_batch():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(3, 2, 9, 11, 2)).astype(np.float32)
    corner = rng.uniform(0, 30, (3, 2, 5, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 20, (3, 2, 5, 2))], -1)
    maps, boxes = jnp.asarray(maps), jnp.asarray(boxes, jnp.float32)
    align = functools.partial(roi_align, strides=(4,), side=3)

    def loss(maps, boxes):
        return jnp.sum(align([maps], boxes) ** 2)

    mapped = jax.jit(jax.vmap(jax.value_and_grad(loss)))(maps, boxes)
    for index in range(3):
        value, gradient = jax.value_and_grad(loss)(maps[index], boxes[index])
        np.testing.assert_allclose(mapped[0][index], value, rtol=1e-5)
        np.testing.assert_allclose(mapped[1][index], gradient, rtol=1e-4, atol=1e-5)


def test_maps_of_bfloat16_are_read_at_exact_places():
    maps = jnp.arange(64, dtype=jnp.bfloat16).reshape(1, 8, 8, 1)
    box = jnp.array([[[4.0, 4.0, 28.0, 28.0]]])
    align = jax.jit(functools.partial(roi_align, strides=(4,), side=3))
    found = align([maps], box)
    assert found.dtype == jnp.bfloat16
    # Bins of two cells, between the centres of which their middle lies.
    rows, columns = np.meshgrid([1.5, 3.5, 5.5], [1.5, 3.5, 5.5], indexing="ij")
    np.testing.assert_array_equal(found[0, 0, ..., 0].astype(jnp.float32), 8 * rows + columns)
