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


def trained(attention: str = "lska", **config) -> VAN:
    """Return a model whose every scale, bias and statistic is something of its own."""
    model = small_model(attention, **config)
    load_state_dict(model, small_state_dict(attention, **config))
    model.eval()
    return model


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def maps_and_logits(model: VAN, x: np.ndarray):
    return jax.jit(lambda x: (model.features(x), model(x)))(x)


@pytest.mark.parametrize("attention", ["lska", "lka_trivial"])
def test_maps_and_logits_are_those_of_evaluation(attention):
    model = trained(attention, k=7, layer_norm_epsilon=1e-5)
    x = images(2, 33, 40, 3)
    maps, logits = maps_and_logits(model, x)
    folded = fold_batch_norm(model)
    folded_maps, folded_logits = maps_and_logits(folded, x)
    for ours, theirs in zip([*folded_maps, folded_logits], [*maps, logits], strict=True):
        # Float32 rounding, of factors that are multiplied in another order.
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    np.testing.assert_allclose(folded.head(folded_maps[-1]), folded_logits, rtol=1e-5, atol=1e-6)


def test_the_fused_attention_takes_the_folded_shortcut():
    x = images(2, 33, 40, 3)
    fused = fold_batch_norm(trained(implementation="pallas"))
    jaxpr = str(jax.make_jaxpr(fused)(x))
    assert "attention_forward" in jaxpr
    expected = maps_and_logits(fold_batch_norm(trained()), x)[1]
    # Float32 rounding through two blocks, of sums in another order.
    error = np.abs(maps_and_logits(fused, x)[1] - expected).max()
    assert error < 1e-5 * np.abs(expected).max()


def test_bfloat16_is_as_near_to_float32_as_without_folding():
    x = images(2, 64, 64, 3)
    exact = maps_and_logits(trained(), x)[1]
    model = trained(dtype=jnp.bfloat16)
    plain = np.abs(maps_and_logits(model, x)[1] - exact).mean()
    maps, logits = maps_and_logits(fold_batch_norm(model), x)
    assert {stage.dtype for stage in maps} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32
    # Other roundings of the same size: twice is far from a factor that was lost.
    assert np.abs(logits - exact).mean() < 2 * plain


def test_statistics_of_a_channel_that_never_varied_are_folded():
    model = trained()
    for norm in (model.stages[0].patch_embedding.norm, model.stages[1].blocks[0].norm_2):
        norm.var.set_value(norm.var[...].at[0].set(0.0))
    x = images(2, 32, 32, 3)
    logits = maps_and_logits(model, x)[1]
    folded = maps_and_logits(fold_batch_norm(model), x)[1]
    assert np.abs(folded - logits).max() < 1e-5 * np.abs(logits).max()


def operations(model: VAN, x: np.ndarray) -> tuple[float, int]:
    """Return floating point operations, and operations on whole maps, of a forward pass."""
    traced = jax.jit(lambda x: model(x)).trace(x)
    cost = traced.lower().compile().cost_analysis()
    return cost["flops"], sum(_count(traced.jaxpr))


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
    x = images(2, 64, 64, 3)
    flops, on_maps = operations(model, x)
    folded_flops, folded_on_maps = operations(fold_batch_norm(model), x)
    assert folded_flops < flops
    # Two norms and two scales a block of three, and a norm in each of two patch embeddings.
    assert on_maps - folded_on_maps >= 3 * 4 + 2


def test_nothing_of_batch_norm_and_layer_scale_is_left():
    model = trained(drop_rate=0.1, drop_path_rate=0.1)
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
    model = trained(drop_path_rate=0.5)
    x = images(2, 32, 32, 3)
    logits = maps_and_logits(model, x)[1]
    model.train()
    folded = fold_batch_norm(model)
    folded.train()
    again = maps_and_logits(folded, x)[1]
    assert np.abs(again - logits).max() < 1e-5 * np.abs(logits).max()


def test_folding_twice_is_refused():
    with pytest.raises(ValueError, match="folded already"):
        fold_batch_norm(fold_batch_norm(small_model()))
