"""What is said of each image, against NumPy, and on any number of devices with one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.models.table import Preprocessing
from lska_jax.robustness.sets.label_sets import shape_classes
from lska_jax.robustness.sweep.classifier import wrap_function
from lska_jax.robustness.sweep.outcomes import OutcomeFunction, collect, outcomes_of_logits
from lska_jax.running import parallel

CLASSES = 12
SUBSET = np.array([1, 4, 5, 11])
GROUPS = [np.array([0, 1]), np.array([2]), np.array([3, 7, 8])]


def masks():
    subsets = np.zeros((2, CLASSES), bool)
    subsets[0] = True
    subsets[1, SUBSET] = True
    groups = np.zeros((3, CLASSES), np.float32)
    for row, classes in zip(groups, GROUPS, strict=True):
        row[classes] = 1 / len(classes)
    return {"subsets": jnp.asarray(subsets), "groups": jnp.asarray(groups)}


compiled = jax.jit(outcomes_of_logits)


def outcomes(logits, labels):
    labels = jnp.asarray(labels, jnp.int32)
    return jax.device_get(compiled(jnp.asarray(logits, jnp.float32), labels, **masks()))


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def test_outcomes_are_those_of_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, CLASSES)) * 3
    labels = rng.choice(SUBSET, 40)
    found = outcomes(logits, labels)
    for column, classes in enumerate([np.arange(CLASSES), SUBSET]):
        probabilities = softmax(logits[:, classes])
        np.testing.assert_array_equal(
            found.prediction[:, column], classes[np.argmax(logits[:, classes], axis=1)]
        )
        # Float32 softmax of logits up to 10: rounding of a few units in the last place.
        np.testing.assert_allclose(
            found.confidence[:, column], probabilities.max(axis=1), rtol=2e-6
        )
        position = np.searchsorted(classes, labels)
        expected = -np.log(probabilities[np.arange(40), position])
        np.testing.assert_allclose(found.nll[:, column], expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(found.top5, np.argsort(-logits, axis=1)[:, :5])
    everything = softmax(logits)
    means = np.stack([everything[:, classes].mean(axis=1) for classes in GROUPS], axis=1)
    np.testing.assert_array_equal(found.group, means.argmax(axis=1))


def test_a_large_group_does_not_outvote_a_small_one():
    logits = np.full((1, CLASSES), -9.0)
    logits[0, [3, 7, 8]] = np.log(0.2)
    logits[0, 2] = np.log(0.3)
    assert outcomes(logits, [0]).group[0] == 1


def test_among_equal_logits_the_first_class_wins():
    found = outcomes(np.zeros((1, CLASSES)), [0])
    assert found.prediction.tolist() == [[0, 1]]
    assert found.top5.tolist() == [[0, 1, 2, 3, 4]]


def test_among_equal_groups_the_first_is_decided():
    logits = np.zeros((1, CLASSES))
    logits[0, [3, 7, 8]] = -9.0
    assert outcomes(logits, [0]).group.tolist() == [0]


def is_among_the_largest(logits, labels, *, k):
    """Rank by hand: classes with a larger logit, and among equals the lower classes, come first."""
    right = []
    for row, label in zip(logits, labels, strict=True):
        before = [c for c in range(len(row)) if (-row[c], c) < (-row[label], label)]
        right.append(len(before) < k and bool(np.isfinite(row).all()))
    return np.array(right)


def test_the_answers_are_those_of_ranks_with_ties_and_broken_logits():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, CLASSES)).astype(np.float32)
    logits[3, 2], logits[7, 0] = np.nan, np.inf
    labels = rng.choice(SUBSET, 200)
    found = outcomes(logits, labels)
    top1 = is_among_the_largest(logits, labels, k=1)
    np.testing.assert_array_equal(found.prediction[:, 0] == labels, top1)
    top5 = is_among_the_largest(logits, labels, k=5)
    np.testing.assert_array_equal((found.top5 == labels[:, None]).any(axis=1), top5)
    logits[[3, 7]] = np.nan  # a logit outside the subset breaks the answer within it too
    within = is_among_the_largest(logits[:, SUBSET], np.searchsorted(SUBSET, labels), k=1)
    np.testing.assert_array_equal(found.prediction[:, 1] == labels, within)


def test_each_imagenet_class_decides_for_the_shape_that_it_belongs_to():
    shapes = shape_classes()
    groups = np.zeros((len(shapes), 1000), np.float32)
    for row, classes in zip(groups, shapes.values(), strict=True):
        row[classes] = 1 / len(classes)
    labels = np.concatenate(list(shapes.values()))
    found = compiled(
        jnp.asarray(30 * np.eye(1000, dtype=np.float32)[labels]),
        jnp.asarray(labels, jnp.int32),
        subsets=jnp.ones((1, 1000), bool),
        groups=jnp.asarray(groups),
    )
    expected = np.repeat(np.arange(len(shapes)), [len(classes) for classes in shapes.values()])
    np.testing.assert_array_equal(found.group, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_no_answer(value):
    logits = np.zeros((2, CLASSES))
    logits[1, 3] = value
    found = outcomes(logits, [1, 1])
    assert found.prediction[1].tolist() == [-1, -1]
    assert found.top5[1].tolist() == [-1] * 5
    assert found.group[1] == -1
    assert found.confidence[1].tolist() == [0, 0]
    assert np.isposinf(found.nll[1]).all()
    assert np.isfinite(found.nll[0]).all()


def test_a_label_outside_the_subset_has_no_likelihood_there():
    found = outcomes(np.zeros((1, CLASSES)), [2])
    assert np.isposinf(found.nll[0, 1])
    assert np.isclose(found.nll[0, 0], np.log(CLASSES))


def mean_colour(weights, images):
    return jnp.mean(images, axis=(1, 2)) @ weights


def test_batches_over_eight_devices_give_what_one_array_gives():
    assert jax.device_count() == 8
    rng = np.random.default_rng(1)
    weights = jnp.asarray(rng.normal(size=(3, CLASSES)), jnp.float32)
    prepared = Preprocessing(image_size=6, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    classifier = wrap_function(
        mean_colour,
        name="colour",
        preprocessing=prepared,
        variables=weights,
        class_names=[f"c{number}" for number in range(CLASSES)],
    )
    mesh = parallel.make_mesh()
    function = OutcomeFunction(
        classifier, mesh=mesh, batch_size=16, subsets=[SUBSET], groups=GROUPS
    )
    images = rng.integers(0, 256, (32, 6, 6, 3), np.uint8)
    labels = rng.integers(0, CLASSES, 32).astype(np.int32)
    keep = np.arange(32) % 5 != 0
    batches = []
    for start in (0, 16):
        rows = slice(start, start + 16)
        placed = parallel.to_global(
            {"image": images[rows], "label": labels[rows]},
            parallel.batch_sharding(mesh),
            global_batch_size=16,
        )
        batches.append(function(placed["image"], placed["label"]))
    found = collect(batches, keep)
    normalised = (images / 255 - np.array(prepared.mean)) / np.array(prepared.std)
    expected = outcomes(normalised.mean(axis=(1, 2)) @ np.asarray(weights), labels)
    np.testing.assert_array_equal(found.prediction, expected.prediction[keep])
    # The device normalises in float32, this test in float64.
    np.testing.assert_allclose(found.confidence, expected.confidence[keep], rtol=1e-5)
