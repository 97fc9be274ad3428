"""Folding BatchNorm: same outputs, fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import small_model, small_state_dict

from lska_jax import VAN, fold_batch_norm
from lska_jax.nn.functional import batch_stats, parameters
from lska_jax.weights import load_state_dict

# One config for all: models that differ in values alone, or in a mode, share a compiled program.
CONFIG = {"k": 7, "drop_rate": 0.1, "drop_path_rate": 0.5, "layer_norm_epsilon": 1e-5}
ONE_BLOCK = {"dims": (4,), "depths": (1,), "ffn_ratios": (2,)}
IMAGES = np.random.default_rng(0).standard_normal((2, 33, 40, 3)).astype(np.float32)


def trained(attention: str = "lska", **config) -> VAN:
    """Return a model whose every scale, bias and statistic is something of its own."""
    model = small_model(attention, **CONFIG, **config)
    load_state_dict(model, small_state_dict(attention, **CONFIG, **config))
    model.eval()
    return model


@nnx.jit
def maps_and_logits(model: VAN):
    images = jnp.asarray(IMAGES)
    return model.features(images), model(images)


def largest_error(ours: jax.Array, theirs: jax.Array) -> float:
    """Return the largest error as a share of the largest value."""
    return float(np.abs(np.subtract(ours, theirs)).max() / np.abs(theirs).max())


@pytest.mark.parametrize("attention", ["lska", pytest.param("lka_trivial", marks=pytest.mark.slow)])
def test_maps_and_logits_are_those_of_evaluation(attention):
    model = trained(attention)
    maps, logits = maps_and_logits(model)
    folded = fold_batch_norm(model)
    folded_maps, folded_logits = maps_and_logits(folded)
    for ours, theirs in zip([*folded_maps, folded_logits], [*maps, logits], strict=True):
        # Float32 rounding, of factors that are multiplied in another order.
        assert largest_error(ours, theirs) < 1e-5
    np.testing.assert_allclose(folded.head(folded_maps[-1]), folded_logits, rtol=1e-5, atol=1e-6)


def test_the_fused_attention_takes_the_folded_shortcut():
    traced, by_steps = (
        jax.jit(fold_batch_norm(trained(implementation=name, **ONE_BLOCK))).trace(IMAGES)
        for name in ("pallas", "auto")
    )
    assert "attention_forward" in str(traced.jaxpr)
    ours, expected = (t.lower().compile()(IMAGES) for t in (traced, by_steps))
    # Float32 rounding through a block, of sums in another order.
    assert largest_error(ours, expected) < 1e-5


@pytest.mark.slow
def test_bfloat16_is_as_near_to_float32_as_without_folding():
    exact = maps_and_logits(trained())[1]
    model = trained(dtype=jnp.bfloat16)
    plain = np.abs(maps_and_logits(model)[1] - exact).mean()
    maps, logits = maps_and_logits(fold_batch_norm(model))
    assert {stage.dtype for stage in maps} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32
    # Other roundings of the same size: twice is far from a factor that was lost.
    assert np.abs(logits - exact).mean() < 2 * plain


def test_statistics_of_a_channel_that_never_varied_are_folded():
    model = trained()
    for norm in (model.stages[0].patch_embedding.norm, model.stages[1].blocks[0].norm_2):
        norm.var.set_value(norm.var[...].at[0].set(0.0))
    logits = maps_and_logits(model)[1]
    assert largest_error(maps_and_logits(fold_batch_norm(model))[1], logits) < 1e-5


def operations(model: VAN) -> tuple[float, int]:
    """Return floating point operations, and operations on whole maps, of a forward pass."""
    traced = jax.jit(lambda x: model(x)).trace(IMAGES)
    return traced.lower().cost_analysis()["flops"], sum(_count(traced.jaxpr))


def _count(jaxpr):
    for equation in jaxpr.eqns:
        inner = [v for v in equation.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
        if inner:
            for value in inner:
                yield from _count(getattr(value, "jaxpr", value))
        elif any(getattr(v.aval, "ndim", 0) == 4 for v in equation.outvars):
            yield 1


def test_there_are_fewer_operations():
    model = trained(implementation="xla")
    flops, on_maps = operations(model)
    folded_flops, folded_on_maps = operations(fold_batch_norm(model))
    assert folded_flops < flops
    # Two norms and two scales a block of three, and a norm in each of two patch embeddings.
    assert on_maps - folded_on_maps >= 3 * 4 + 2


def test_nothing_of_batch_norm_and_layer_scale_is_left():
    model = trained()
    folded = fold_batch_norm(model)
    assert batch_stats(folded) == {}
    kinds = {type(module).__name__ for _, module in nnx.iter_modules(folded)}
    assert not kinds & {"BatchNorm", "LayerScale", "Dropout", "DropPath"}
    assert "LayerNorm" in kinds
    assert sum(x.size for x in parameters(folded).values()) < sum(
        x.size for x in parameters(model).values()
    )


def test_the_model_is_left_as_it_was():
    model = trained()
    before = jax.tree.map(np.array, {**parameters(model), **batch_stats(model)})
    folded = fold_batch_norm(model)
    after = {**parameters(model), **batch_stats(model)}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[path], after[path]) for path in before)
    assert folded.config == model.config and folded.preprocessing == model.preprocessing


def test_the_mode_of_the_folded_model_makes_no_difference():
    model = trained()
    logits = maps_and_logits(model)[1]
    model.train()
    folded = fold_batch_norm(model)
    folded.train()
    assert largest_error(maps_and_logits(folded)[1], logits) < 1e-5


def test_folding_twice_is_refused():
    with pytest.raises(ValueError, match="folded already"):
        fold_batch_norm(fold_batch_norm(small_model()))
