"""One-pass moments and the normalisation's own gradient, against autodiff of the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.batch_norm import moments, normalise
from lska_jax.ops.reduction import sum_over_pixels

EPSILON = 1e-5
SHAPES = [(3, 9, 5, 4), (2, 16, 3, 4), (2, 1, 1, 4), (50, 4)]


def draw(shape):
    rng = np.random.default_rng(0)
    x = (1.0 + 2.0 * rng.standard_normal(shape)).astype(np.float32)
    scale, bias = rng.standard_normal((2, shape[-1])).astype(np.float32)
    cotangent = rng.standard_normal(shape).astype(np.float32)
    return tuple(map(jnp.asarray, (x, scale, bias, cotangent)))


def ours(x, scale, bias):
    return normalise(x, scale, bias, moments(x), EPSILON)


def definition(x, scale, bias):
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axes, keepdims=True)
    scale, bias = (vector[(None,) * (x.ndim - 1)] for vector in (scale, bias))
    return (x - mean) / jnp.sqrt(variance + EPSILON) * scale + bias


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_equal_autodiff_of_the_definition(shape):
    *arrays, cotangent = draw(shape)

    def both(function):
        @jax.jit
        def run(*arrays):
            out, pull_back = jax.vjp(function, *arrays)
            return out, *pull_back(cotangent)

        return run(*arrays)

    for one, other in zip(both(ours), both(definition), strict=True):
        # Two ways to the same variance; float32 roundings against the largest entry.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max() + 1e-6)


@pytest.mark.parametrize("shape", [(3, 9, 5, 4), (2, 1, 1, 4)], ids=str)
def test_the_gradient_of_a_gradient_equals_that_of_the_definition(shape):
    x, scale, bias, cotangent = draw(shape)

    def penalty(function):
        def loss(*arrays):
            return jnp.sum(jnp.sin(function(*arrays)) * cotangent)

        def squares(*arrays):
            return sum(jnp.vdot(g, g) for g in jax.grad(loss, argnums=(0, 1, 2))(*arrays))

        return jax.jit(jax.grad(squares, argnums=(0, 1, 2)))(x, scale, bias)

    for one, other in zip(penalty(ours), penalty(definition), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max() + 1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments_are_mean_and_biased_variance(shape):
    x = draw(shape)[0]
    axes = tuple(range(x.ndim - 1))
    mean, variance = jax.jit(moments)(x)
    np.testing.assert_allclose(mean, np.asarray(x, np.float64).mean(axes), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, np.asarray(x, np.float64).var(axes), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mean", [-1e2, 1e4])
@pytest.mark.parametrize("pivot_error", [None, 0.0, 2.0])
def test_the_variance_survives_a_mean_that_is_far_from_zero(mean, pivot_error):
    rng = np.random.default_rng(0)
    x = (mean + rng.standard_normal((8, 14, 14, 5))).astype(np.float32)
    pivot = None if pivot_error is None else jnp.full((5,), mean + pivot_error, jnp.float32)
    _, variance = jax.jit(moments)(jnp.asarray(x), pivot)
    # Sums of 1568 squares of up to 30: some float32 roundings of 6e-8 each.
    np.testing.assert_allclose(variance, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("height", [14, 1])
@pytest.mark.parametrize("channels_far", [1, 5])
def test_a_pivot_of_zero_is_as_exact_as_two_passes_where_the_mean_is_far(height, channels_far):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, height, 14, 5)).astype(np.float32)
    x[..., :channels_far] += 4096
    mean, variance = jax.jit(lambda x: moments(x, jnp.zeros(5)))(x)
    exact = np.asarray(x, np.float64)
    # Half a unit in the last place of 4096, and what its square leaves in the variance.
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-5)


def test_the_first_step_normalises_a_batch_that_is_far_from_zero():
    rng = np.random.default_rng(0)
    x = (4096 + rng.standard_normal((8, 16, 16, 4))).astype(np.float32)
    unit, none = jnp.ones(4), jnp.zeros(4)
    out = jax.jit(lambda x: normalise(x, unit, none, moments(x, none), EPSILON))(x)
    np.testing.assert_allclose(np.std(out, (0, 1, 2)), 1.0, rtol=1e-4)


@pytest.mark.parametrize("pivot", [np.nan, np.inf])
def test_a_running_mean_that_was_spoilt_does_not_spoil_the_next_batch(pivot):
    x = draw((3, 9, 5, 4))[0]
    run = jax.jit(lambda x, pivot: (moments(x, pivot), moments(x)))
    for one, other in zip(*run(x, jnp.full((4,), pivot)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)  # float32 roundings of 135 summands


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.hessian])
def test_forward_mode_is_refused_with_what_works_instead(derivative):
    x, scale, bias, _ = draw((2, 7, 5, 4))
    with pytest.raises(TypeError, match=r"normalise has derivatives of reverse mode only.*jacrev"):
        jax.eval_shape(derivative(lambda scale: jnp.sum(ours(x, scale, bias))), scale)


def test_a_constant_channel_has_no_variance_below_zero():
    _, variance = jax.jit(moments)(jnp.full((4, 7, 7, 3), 1234.567, jnp.float32))
    assert (variance >= 0).all()


def test_bfloat16_is_summed_in_float32_and_returned_as_bfloat16():
    x, scale, bias, _ = draw((4, 16, 16, 4))
    half = jnp.asarray(x, jnp.bfloat16)
    mean, variance = jax.jit(moments)(half)
    assert mean.dtype == variance.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.asarray(half, np.float64).mean((0, 1, 2)), rtol=1e-5)
    assert jax.eval_shape(ours, half, scale, bias).dtype == jnp.bfloat16


def test_only_the_input_is_kept_for_the_backward_pass():
    x, scale, bias, _ = draw((3, 9, 5, 4))
    half = jnp.asarray(x, jnp.bfloat16)
    _, pull_back = jax.eval_shape(lambda *arrays: jax.vjp(ours, *arrays), half, scale, bias)
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if getattr(leaf, "size", 0) >= half.size]
    assert {(leaf.shape, leaf.dtype) for leaf in kept} == {(half.shape, half.dtype)}


def test_sums_over_pixels_are_those_of_numpy_at_any_height():
    rng = np.random.default_rng(0)
    drawn = [
        rng.standard_normal((3, 2, height, 5, 4)).astype(np.float32)
        for height in (1, 6, 7, 8, 13, 16)
    ]
    run = jax.jit(lambda drawn: [sum_over_pixels(tuple(maps)) for maps in drawn])
    for sums, maps in zip(run(drawn), drawn, strict=True):
        np.testing.assert_allclose(np.stack(sums), maps.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
