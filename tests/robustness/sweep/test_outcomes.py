"""What is said of each image, against NumPy, and on any number of devices with one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.models.table import Preprocessing
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


def outcomes(logits, labels):
    labels = jnp.asarray(labels, jnp.int32)
    return jax.device_get(outcomes_of_logits(jnp.asarray(logits, jnp.float32), labels, **masks()))


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
