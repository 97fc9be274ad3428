import functools

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.nms import suppress, suppress_each

# All cases are padded to one shape, which compiles once for each threshold.
ENTRIES = 400
SEEDS = range(12)


@functools.partial(jax.jit, static_argnames=("threshold", "most"))
def padded_suppress(boxes, scores, labels, threshold, most):
    return suppress(boxes, scores, labels=labels, threshold=threshold, max_outputs=most)


def kept(boxes, scores, threshold, labels=None, most=ENTRIES):
    count = len(boxes)
    filler = np.full((ENTRIES, 4), np.nan, np.float32)
    filler[:count] = boxes
    of_all = np.full(ENTRIES, -np.inf, np.float32)
    of_all[:count] = scores
    classes = np.zeros(ENTRIES, np.int32)
    classes[:count] = 0 if labels is None else labels
    found = padded_suppress(filler, of_all, classes, threshold, most)
    return np.asarray(found.indices)[np.asarray(found.is_valid)]


def greedy(boxes, scores, threshold, labels=None):
    """The definition, box by box."""
    labels = np.zeros(len(boxes), int) if labels is None else labels
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen = []
    for index in np.argsort(-scores, kind="stable"):
        before = np.array(chosen, int)
        low = np.maximum(boxes[index, :2], boxes[before, :2])
        high = np.minimum(boxes[index, 2:], boxes[before, 2:])
        sides = np.maximum(high - low, 0)
        common = sides[:, 0] * sides[:, 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            ious = common / (areas[before] + areas[index] - common)
            is_out = (ious > np.float32(threshold)) & (labels[before] == labels[index])
        if not is_out.any():
            chosen.append(index)
    return np.array(chosen, int)


@pytest.mark.parametrize("case", ["random", "chain", "ties", "exactly_half", "empty"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_the_reference_keeps_the_same_boxes(case, threshold):
    stored = golden_baselines.golden("dense/ops_nms")
    found = kept(stored[f"{case}/boxes"], stored[f"{case}/scores"], threshold)
    np.testing.assert_array_equal(found, stored[f"{case}/keep_{threshold}"])


@pytest.mark.parametrize(("case", "boxes"), [("by_class", "random"), ("far", "far")])
def test_boxes_of_other_classes_are_left_alone(case, boxes):
    stored = golden_baselines.golden("dense/ops_nms")
    arrays = stored[f"{boxes}/boxes"], stored[f"{boxes}/scores"]
    found = kept(*arrays, 0.5, labels=stored[f"{case}/labels"])
    np.testing.assert_array_equal(found, stored[f"{case}/keep_0.5"])


def random_case(seed):
    """Clusters, equal scores, boxes of whole numbers and empty ones among them."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, ENTRIES + 1))
    centres = rng.uniform(0, 200, (max(count // 8, 1), 2))[
        rng.integers(max(count // 8, 1), size=count)
    ]
    sides = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1)
    boxes = (boxes.round() if seed % 2 else boxes).astype(np.float32)
    scores = rng.choice(np.linspace(0.1, 0.9, 25), count).astype(np.float32)
    return boxes, scores, rng.integers(0, 3, count)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_boxes_are_kept_as_by_a_greedy_loop(seed):
    boxes, scores, labels = random_case(seed)
    np.testing.assert_array_equal(
        kept(boxes, scores, 0.5, labels), greedy(boxes, scores, 0.5, labels)
    )


def test_a_chain_longer_than_a_block_is_followed_to_its_end():
    # Each box suppresses the next one alone, so that every second one stays.
    starts = np.arange(ENTRIES, dtype=np.float32) * 3
    boxes = np.stack([starts, 0 * starts, starts + 10, 0 * starts + 10], 1)
    scores = np.linspace(1, 0.5, ENTRIES, dtype=np.float32)
    np.testing.assert_array_equal(kept(boxes, scores, 0.5), np.arange(0, ENTRIES, 2))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_first_boxes_are_those_of_a_longer_list(seed):
    boxes, scores, labels = random_case(seed)
    everything = kept(boxes, scores, 0.5, labels)
    assert len(everything) > 7
    np.testing.assert_array_equal(kept(boxes, scores, 0.5, labels, most=7), everything[:7])


def test_entries_without_a_number_for_a_score_are_no_boxes():
    boxes = np.array([[0, 0, 9, 9], [20, 20, 30, 30], [50, 50, 60, 60]], np.float32)
    found = kept(boxes, np.array([np.nan, 0.2, -np.inf], np.float32), 0.5)
    np.testing.assert_array_equal(found, [1])


def test_scores_of_either_zero_are_equal():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 30, 30]], np.float32)
    np.testing.assert_array_equal(kept(boxes, np.array([-0.0, 0.0, 0.0], np.float32), 0.5), [0, 2])


def test_no_boxes_leave_none():
    found = suppress(jnp.zeros((0, 4)), jnp.zeros((0,)), threshold=0.5, max_outputs=3)
    assert found.indices.shape == (3,)
    assert not found.is_valid.any()


def test_images_of_a_batch_do_not_meet():
    cases = [random_case(seed) for seed in (3, 4)]
    boxes = np.zeros((2, ENTRIES, 4), np.float32)
    scores = np.full((2, ENTRIES), -np.inf, np.float32)
    labels = np.zeros((2, ENTRIES), np.int32)
    for image, case in enumerate(cases):
        for array, values in zip((boxes, scores, labels), case, strict=True):
            array[image, : len(values)] = values
    run = jax.jit(functools.partial(suppress_each, threshold=0.5, max_outputs=ENTRIES))
    found = run(boxes, scores, labels=labels)
    for image, case in enumerate(cases):
        expected = greedy(case[0], case[1], 0.5, case[2])
        is_valid = np.asarray(found.is_valid)[image]
        np.testing.assert_array_equal(np.asarray(found.indices)[image][is_valid], expected)
