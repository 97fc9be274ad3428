import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.models.dense.anchors import Anchors, join_levels

ANCHORS = {
    "retinanet": Anchors(
        strides=(8, 16, 32, 64, 128), scales=tuple(4 * 2 ** (third / 3) for third in range(3))
    ),
    "rpn": Anchors(strides=(4, 8, 16, 32, 64), scales=(8.0,)),
}


def sizes_of(stored, name):
    return [tuple(map(int, size)) for size in stored[f"{name}/sizes"]]


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_are_those_of_the_reference(name):
    stored = golden_baselines.golden("dense/ops_anchors")
    sizes = sizes_of(stored, name)
    counts = ANCHORS[name].counts(sizes)
    np.testing.assert_array_equal(counts, stored[f"{name}/counts"])
    boxes = ANCHORS[name].boxes(sizes)
    for level, begin in enumerate(np.cumsum((0, *counts[:-1]))):
        of_level = boxes[begin : begin + counts[level]]
        step = int(stored[f"{name}/step{level}"])
        np.testing.assert_allclose(of_level[::step], stored[f"{name}/rows{level}"], atol=1e-4)


@pytest.mark.parametrize("name", ["retinanet", pytest.param("rpn", marks=pytest.mark.slow)])
def test_anchors_of_the_batchs_padding_are_told_apart(name):
    stored = golden_baselines.golden("dense/ops_anchors")
    sizes = sizes_of(stored, name)
    shapes = jnp.asarray([stored["valid_pad_shape"], [800, 1344]], jnp.int32)
    within = jax.jit(lambda shapes: ANCHORS[name].is_within(sizes, shapes))
    is_within = np.asarray(within(shapes))
    ends = np.cumsum(ANCHORS[name].counts(sizes))
    counts = [int(part.sum()) for part in np.split(is_within[0], ends[:-1])]
    np.testing.assert_array_equal(counts, stored[f"{name}/valid_counts"])
    assert is_within[1].all()


def test_outputs_of_heads_come_in_the_order_of_the_anchors():
    anchors = Anchors(strides=(4, 8), scales=(1.0,))
    sizes = [(2, 3), (1, 2)]
    boxes = anchors.boxes(sizes)
    # A head that says where each of its anchors has its centre, and how high it is.
    maps, begin = [], 0
    for (height, width), count in zip(sizes, anchors.counts(sizes), strict=True):
        of_level = boxes[begin : begin + count].reshape(1, height, width, -1)
        maps.append(jnp.asarray(of_level))
        begin += count
    np.testing.assert_array_equal(join_levels(maps, 4)[0], boxes)
    assert boxes[3 * 3, 0] + boxes[3 * 3, 2] == 0  # the second row begins at its left end
    assert boxes[3 * 3, 1] + boxes[3 * 3, 3] == 2 * 4
