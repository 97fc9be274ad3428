"""Evaluation sums against scikit-learn and NumPy, on ties, masks, NaN and shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lska_jax.tasks import accuracy
from lska_jax.tasks.accuracy import EvalSums

CLASSES = 11
EXAMPLES = 96
eval_sums = jax.jit(accuracy.eval_sums)


@pytest.fixture(scope="module")
def batch() -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    labels = generator.integers(CLASSES, size=EXAMPLES).astype(np.int32)
    logits = generator.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
    logits[np.arange(EXAMPLES), labels] += 1.0
    mask = generator.random(EXAMPLES) < 0.7
    return jax.tree.map(jnp.asarray, {"logits": logits, "labels": labels, "mask": mask})


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_means_equal_scikit_learns_over_the_rows_that_count(batch):
    # Not at the top of the file: it takes a second, in each process that collects tests.
    from sklearn.metrics import log_loss, top_k_accuracy_score

    logits, labels, mask = jax.device_get((batch["logits"], batch["labels"], batch["mask"]))
    logits, labels = logits[mask], labels[mask]
    means = eval_sums(**batch).means()
    classes = np.arange(CLASSES)
    assert means["top1"] == top_k_accuracy_score(labels, logits, k=1, labels=classes)
    assert means["top5"] == top_k_accuracy_score(labels, logits, k=5, labels=classes)
    expected = log_loss(labels, softmax(logits), labels=classes)
    # A float32 sum over fewer than a hundred losses.
    np.testing.assert_allclose(means["loss"], expected, rtol=1e-5)


def test_masked_rows_count_nothing_whatever_they_hold(batch):
    masked = np.flatnonzero(~np.asarray(batch["mask"]))
    logits = batch["logits"].at[masked].set(jnp.nan).at[masked[0]].set(jnp.inf)
    spoiled = eval_sums(logits, batch["labels"], batch["mask"])
    assert spoiled == eval_sums(**batch)


def test_sums_over_parts_equal_the_sums_over_the_whole(batch):
    total = EvalSums.zero()
    for start in range(0, EXAMPLES, 32):
        part = {name: array[start : start + 32] for name, array in batch.items()}
        total += jax.device_get(eval_sums(**part))
    whole = eval_sums(**batch)
    assert (total.examples, total.top1, total.top5) == (whole.examples, whole.top1, whole.top5)
    np.testing.assert_allclose(total.loss, whole.loss, rtol=1e-6)


@pytest.mark.parametrize(("label", "top1", "top5"), [(0, 1, 1), (1, 0, 1), (4, 0, 1), (5, 0, 0)])
def test_among_equal_logits_the_lower_class_comes_first(label, top1, top5):
    sums = eval_sums(jnp.zeros((1, 8)), jnp.array([label]), jnp.array([True]))
    assert (int(sums.top1), int(sums.top5)) == (top1, top5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [2, 3])
def test_logits_that_are_not_finite_count_as_wrong(value, position):
    logits = jnp.array([[0.0, 1.0, 2.0, 9.0]]).at[0, position].set(value)
    sums = eval_sums(logits, jnp.array([3]), jnp.array([True]))
    assert (int(sums.examples), int(sums.top1), int(sums.top5)) == (1, 0, 0)


def test_with_fewer_than_five_classes_every_finite_row_is_in_the_first_five(batch):
    logits = batch["logits"][:, :3]
    sums = eval_sums(logits, batch["labels"] % 3, batch["mask"])
    assert int(sums.top5) == int(sums.examples) == batch["mask"].sum()


def test_bfloat16_logits_are_summed_in_float32(batch):
    logits = batch["logits"].astype(jnp.bfloat16)
    same_values = logits.astype(jnp.float32)
    low = eval_sums(logits, batch["labels"], batch["mask"])
    assert low.loss.dtype == jnp.float32
    assert low == eval_sums(same_values, batch["labels"], batch["mask"])


def test_a_batch_sharded_over_eight_devices_has_the_same_sums(batch):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    sharded = {name: jax.device_put(array, sharding) for name, array in batch.items()}
    there, here = eval_sums(**sharded), eval_sums(**batch)
    assert (there.examples, there.top1, there.top5) == (here.examples, here.top1, here.top5)
    # Eight partial sums are added in another order.
    np.testing.assert_allclose(there.loss, here.loss, rtol=1e-6)


def test_nothing_counted_is_an_error_that_says_so(batch):
    sums = eval_sums(batch["logits"], batch["labels"], jnp.zeros(EXAMPLES, bool))
    with pytest.raises(ValueError, match="No example was counted"):
        sums.means()
