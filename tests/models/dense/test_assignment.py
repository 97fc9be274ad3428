import functools

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.models.dense.assignment import Overlaps, assign, sample

OVERLAPS = {
    "retinanet": Overlaps(0.5, 0.4, 0.0),
    "rpn": Overlaps(0.7, 0.3, 0.3),
    "rcnn": Overlaps(0.5, 0.5, 0.5),
}
CASES = ("three", "outside", "symmetric", "none", "identical")
# Rows of ground truth, most of which are padding.
ROWS = 8


@functools.partial(jax.jit, static_argnames="overlaps")
def assigned(boxes, truth, is_truth, is_box, overlaps):
    return assign(boxes, truth, is_truth=is_truth, is_box=is_box, overlaps=overlaps)


def padded(truth, rows=ROWS):
    filled = np.zeros((rows, 4), np.float32)
    filled[: len(truth)] = truth
    return filled, np.arange(rows) < len(truth)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", OVERLAPS)
def test_boxes_are_assigned_as_in_the_reference(name, case):
    stored = golden_baselines.golden("dense/ops_assign")
    boxes = stored[f"{name}/boxes"]
    is_box = np.ones(len(boxes), bool)
    found = assigned(boxes, *padded(stored[f"gt/{case}"]), is_box, OVERLAPS[name])
    np.testing.assert_array_equal(found, stored[f"{name}/{case}/assigned"])


def test_boxes_that_do_not_count_change_nothing():
    # In the middle of the others: an object's best box has to be one that counts.
    stored = golden_baselines.golden("dense/ops_assign")
    boxes, (truth, is_truth) = stored["retinanet/boxes"], padded(stored["gt/three"])
    best = np.flatnonzero(stored["retinanet/three/assigned"] > 0)
    is_box = np.ones(len(boxes), bool)
    is_box[best[::2]] = False
    found = np.asarray(assigned(boxes, truth, is_truth, is_box, OVERLAPS["retinanet"]))
    of_rest = assigned(boxes[is_box], truth, is_truth, is_box[is_box], OVERLAPS["retinanet"])
    np.testing.assert_array_equal(found[is_box], of_rest)
    assert (found[~is_box] == -1).all()


sample_at_once = jax.jit(sample, static_argnames=("total", "most_objects"))


def chosen(states, total, most, key=None):
    states = jnp.asarray(states, jnp.int32)
    found = sample_at_once(states, total=total, most_objects=most, key=key)
    return tuple(np.asarray(array) for array in found)


@pytest.mark.parametrize(
    ("states", "objects", "background"),
    [
        ([0, 1, -1, 2, 0, 3, 0, 0, 0], [1, 3], [0, 4, 6]),  # two objects at most
        ([0, 1, -1, -1, -1, -1, -1, -1, -1], [1], [0]),  # fewer than wanted
        ([1, 2, -1, -1, -1, -1, -1, -1, -1], [0, 1], []),
        ([0, 0, 0, 0, 0, 0, 0, 0, -1], [], [0, 1, 2, 3, 4]),
        ([-1] * 9, [], []),
    ],
)
def test_the_first_boxes_in_their_order_are_chosen_without_a_key(states, objects, background):
    indices, is_object, is_background = chosen(states, total=5, most=2)
    assert indices[is_object].tolist() == objects
    assert indices[is_background].tolist() == background
    assert np.flatnonzero(is_object).tolist() == list(range(len(objects)))


def test_more_boxes_may_be_wanted_than_there_are():
    indices, is_object, is_background = chosen([0, 1, 0], total=6, most=3)
    assert indices[is_object].tolist() == [1]
    assert indices[is_background].tolist() == [0, 2]


def test_a_key_chooses_at_random_and_never_one_box_twice():
    states = np.zeros(300, np.int32)
    states[100:150] = np.arange(50) + 1
    draws = [chosen(states, total=40, most=20, key=jax.random.key(seed)) for seed in (0, 1)]
    for indices, is_object, is_background in draws:
        assert is_object.sum() == 20
        assert is_background.sum() == 20
        assert (states[indices[is_object]] > 0).all()
        assert (states[indices[is_background]] == 0).all()
        assert len(set(indices.tolist())) == 40
    assert set(draws[0][0].tolist()) != set(draws[1][0].tolist())
