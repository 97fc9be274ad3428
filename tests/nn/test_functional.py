"""A model as pure functions over flat dictionaries of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model
from lska_jax.nn.functional import ModelFunctions, assign, batch_stats, parameters

IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 24, 17, 3)), jnp.float32)
# The same operations in the same order, jitted on one side: fused float32 roundings.
FUSED = {"rtol": 1e-4, "atol": 1e-5}


def small_model(**config) -> nnx.Module:
    sizes = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2), "implementation": "xla"}
    dropping = {"drop_rate": 0.2, "drop_path_rate": 0.4}
    return create_model("van_lska_tiny", k=7, num_classes=5, **{**sizes, **dropping, **config})


@pytest.fixture(scope="module")
def model() -> nnx.Module:
    """A model that no test changes."""
    return small_model()


@pytest.fixture(scope="module")
def train(model):
    return jax.jit(ModelFunctions(model).train)


@pytest.fixture(scope="module")
def evaluate(model):
    return jax.jit(ModelFunctions(model).evaluate)


@nnx.jit
def call(model: nnx.Module, key: jax.Array) -> jax.Array:
    return model(IMAGES, rngs=nnx.Rngs(dropout=key))


def test_paths_are_sorted_and_joined_by_slashes(model):
    paths = list(parameters(model))
    assert paths == sorted(paths)
    assert "stages/1/blocks/0/attention/gate/depthwise/3/kernel" in paths
    assert {"classifier/bias", "stages/0/blocks/0/scale_1/scale"} <= set(paths)


def test_statistics_are_the_means_and_variances_of_every_batch_norm(model):
    stats = batch_stats(model)
    assert len(stats) == 2 * 3 * 2
    assert {path.rsplit("/", 1)[1] for path in stats} == {"mean", "var"}
    assert not set(stats) & set(parameters(model))


@pytest.mark.parametrize("seed", [0, 7])
def test_evaluate_equals_the_module_in_evaluation_mode_with_the_parameters_of_any(evaluate, seed):
    model = small_model(rngs=nnx.Rngs(seed))
    logits = evaluate(parameters(model), batch_stats(model), IMAGES)
    model.eval()
    np.testing.assert_allclose(logits, call(model, jax.random.key(0)), **FUSED)


def test_train_equals_the_module_in_training_mode(train):
    model = small_model()
    key = jax.random.key(3)
    logits, stats = train(parameters(model), batch_stats(model), IMAGES, key=key)
    model.train()
    np.testing.assert_allclose(logits, call(model, key), **FUSED)
    for path, updated in batch_stats(model).items():
        np.testing.assert_allclose(stats[path], updated, **FUSED, err_msg=path)


def test_train_returns_statistics_that_have_moved(model, train):
    before = batch_stats(model)
    _, stats = train(parameters(model), before, IMAGES, key=jax.random.key(0))
    assert stats.keys() == before.keys()
    assert all(np.any(stats[path] != before[path]) for path in before)


def test_both_modes_leave_the_model_as_it_was(model, train, evaluate):
    before = jax.tree.map(np.array, {**parameters(model), **batch_stats(model)})
    train(parameters(model), batch_stats(model), IMAGES, key=jax.random.key(0))
    evaluate(parameters(model), batch_stats(model), IMAGES)
    after = {**parameters(model), **batch_stats(model)}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[path], after[path]) for path in before)
    # As it was built: what another test has traced with it left nothing either.
    built = small_model()
    built = {**parameters(built), **batch_stats(built)}
    assert all(np.array_equal(built[path], after[path]) for path in before)
    assert not model.stages[0].blocks[0].norm_1.use_running_average


def test_the_key_decides_what_is_dropped(model, train):
    scaled = {
        path: jnp.ones_like(a) if "/scale_" in path else a for path, a in parameters(model).items()
    }
    once, again, other = (
        train(scaled, batch_stats(model), IMAGES, key=jax.random.key(seed))[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(once, again)
    assert np.any(once != other)


def test_assign_writes_parameters_and_statistics_in_place():
    model = small_model()
    new = {
        "classifier/bias": jnp.arange(5.0),
        "stages/1/patch_embedding/norm/mean": jnp.full(6, 2.0),
    }
    assign(model, new)
    np.testing.assert_array_equal(model.classifier.bias[...], np.arange(5))
    np.testing.assert_array_equal(model.stages[1].patch_embedding.norm.mean[...], np.full(6, 2))


def test_assign_refuses_a_path_that_the_model_does_not_have():
    with pytest.raises(KeyError, match="classifier/scale"):
        assign(small_model(), {"classifier/scale": jnp.zeros(5)})
