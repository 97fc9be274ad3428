import functools

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.boxes import clip_boxes, decode_boxes, encode_boxes, iou_matrix

STDS = {"unit": (1.0, 1.0, 1.0, 1.0), "roi": (0.1, 0.1, 0.2, 0.2)}
# Height and width of the image that stored boxes are cut off at.
IMAGE = (100, 140)


@pytest.fixture(scope="module")
def stored():
    return golden_baselines.golden("dense/ops_box_coder")


def numpy_iou(boxes, others):
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others)]
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low, np.float32(0))
    common = sides[..., 0] * sides[..., 1]
    union = areas[0][:, None] + areas[1][None] - common
    return common / np.maximum(union, np.float32(1e-6))


def random_boxes(seed, count):
    rng = np.random.default_rng(seed)
    corner, sides = rng.uniform(-20, 100, (count, 2)), rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def test_overlaps_are_those_of_numpy_to_the_last_bit():
    # The assignment of anchors compares them for equality.
    boxes, others = random_boxes(0, 300), random_boxes(1, 200)
    found = jax.jit(iou_matrix)(boxes, others)
    np.testing.assert_array_equal(found, numpy_iou(boxes, others))
    assert (np.asarray(found) > 0).mean() > 0.1


def test_empty_boxes_overlap_by_nothing():
    empty = jnp.array([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 9.0]])
    np.testing.assert_array_equal(jax.jit(iou_matrix)(empty, empty), 0)


@pytest.mark.parametrize("coder", STDS)
def test_deltas_are_those_of_the_reference(stored, coder):
    encode = jax.jit(functools.partial(encode_boxes, stds=STDS[coder]))
    found = encode(stored["anchors"], stored["gt"])
    np.testing.assert_allclose(found, stored[f"{coder}/encoded"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("coder", STDS)
def test_decoded_boxes_are_those_of_the_reference(stored, coder):
    decode = jax.jit(functools.partial(decode_boxes, stds=STDS[coder]))
    anchors = stored["anchors"]
    unclipped = decode(anchors, stored["deltas"])
    np.testing.assert_allclose(
        unclipped, stored[f"{coder}/decoded_unclipped"], rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(
        clip_boxes(unclipped, *IMAGE), stored[f"{coder}/decoded"], rtol=1e-5, atol=1e-4
    )


def test_deltas_of_every_class_decode_as_the_reference_decodes_them(stored):
    anchors = jnp.asarray(np.repeat(stored["anchors"][:, None], 3, axis=1))
    deltas = jnp.asarray(stored["deltas_3_classes"].reshape(-1, 3, 4))
    found = clip_boxes(decode_boxes(anchors, deltas, stds=STDS["roi"]), *IMAGE)
    expected = stored["roi/decoded_3_classes"].reshape(-1, 3, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_sides_grow_and_shrink_by_a_limit():
    anchor = jnp.array([[0.0, 0.0, 16.0, 16.0]])
    for sign, side in ((1.0, 1000.0), (-1.0, 0.256)):
        x1, _, x2, _ = decode_boxes(anchor, jnp.array([[0.0, 0.0, 99.0, 99.0]]) * sign)[0]
        np.testing.assert_allclose(x2 - x1, side, rtol=1e-5)


def test_boxes_of_bfloat16_deltas_are_float32():
    boxes = jnp.array([[0.0, 0.0, 16.0, 16.0]])
    assert decode_boxes(boxes, jnp.zeros((1, 4), jnp.bfloat16)).dtype == jnp.float32


def test_encoding_is_the_inverse_of_decoding():
    anchors, boxes = random_boxes(2, 50) + [0, 0, 1, 1], random_boxes(3, 50) + [0, 0, 1, 1]
    anchors, boxes = anchors.astype(np.float32), boxes.astype(np.float32)
    found = jax.jit(lambda a, b: decode_boxes(a, encode_boxes(a, b)))(anchors, boxes)
    np.testing.assert_allclose(found, boxes, rtol=1e-4, atol=1e-3)
