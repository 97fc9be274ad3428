"""LayerNorm and its own gradient against the definition in float64."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from lska_jax.ops.layer_norm import layer_norm

EPSILON = 1e-6
SHAPES = [(2, 5, 3, 12), (3, 7, 8), (6, 4)]
normalise = functools.partial(layer_norm, epsilon=EPSILON)


def draw(shape, *, mean=0.5):
    """Return x, scale, bias and a gradient of the output, float32."""
    rng = np.random.default_rng(0)
    x = (mean + 2.0 * rng.standard_normal(shape)).astype(np.float32)
    scale, bias = rng.uniform(0.5, 1.5, (2, shape[-1])).astype(np.float32)
    return x, scale, bias, rng.standard_normal(shape).astype(np.float32)


def whiten(x):
    """Return the whitened map and the factor of every pixel, in float64."""
    x = np.asarray(x, np.float64)
    centred = x - x.mean(-1, keepdims=True)
    factor = 1.0 / np.sqrt(np.mean(centred**2, -1, keepdims=True) + EPSILON)
    return centred * factor, factor


def exact_gradients(x, scale, gradient):
    """Return the gradients of x, scale and bias, in float64."""
    whitened, factor = whiten(x)
    gradient = np.asarray(gradient, np.float64)
    channels = x.shape[-1]
    # The whole Jacobian of a pixel: no formula is shared with what is tested.
    identity = np.eye(channels) - 1.0 / channels
    outer = whitened[..., :, None] * whitened[..., None, :] / channels
    jacobian = factor[..., None] * (identity - outer)
    of_x = np.einsum("...ij,...i->...j", jacobian, gradient * np.asarray(scale, np.float64))
    pixels = tuple(range(x.ndim - 1))
    return of_x, np.sum(gradient * whitened, pixels), np.sum(gradient, pixels)


def with_gradients(*arrays, gradient):
    @jax.jit
    def run(arrays, gradient):
        out, pull_back = jax.vjp(normalise, *arrays)
        return out, *pull_back(gradient)

    return run(arrays, gradient)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_equal_the_definition(shape, platform, monkeypatch):
    monkeypatch.setattr("lska_jax.ops.layer_norm.target_platform", lambda: platform)
    x, scale, bias, gradient = draw(shape)
    out, *gradients = with_gradients(x, scale, bias, gradient=gradient)
    np.testing.assert_allclose(out, whiten(x)[0] * scale + bias, rtol=0, atol=2e-6)
    for found, exact in zip(gradients, exact_gradients(x, scale, gradient), strict=True):
        # Some float32 roundings against the largest entry.
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6 * np.abs(exact).max())


def test_the_gradient_equals_finite_differences():
    x, scale, bias, gradient = draw((2, 3, 6))
    direction = np.random.default_rng(1).standard_normal(x.shape)

    def loss(step):
        whitened, _ = whiten(x + step * direction)
        return np.sum((whitened * scale + bias) * gradient)

    step = 1e-4
    expected = (loss(step) - loss(-step)) / (2 * step)
    _, of_x, _, _ = with_gradients(x, scale, bias, gradient=gradient)
    np.testing.assert_allclose(np.vdot(of_x, direction), expected, rtol=1e-5)


@pytest.mark.parametrize(("has_scale", "has_bias"), [(False, False), (True, False), (False, True)])
def test_without_scale_or_bias_they_are_one_and_zero(has_scale, has_bias):
    x, scale, bias, gradient = draw((2, 5, 3, 12))
    unit, zero = np.ones_like(scale), np.zeros_like(bias)
    full = with_gradients(
        x, scale if has_scale else unit, bias if has_bias else zero, gradient=gradient
    )
    found = with_gradients(
        x, scale if has_scale else None, bias if has_bias else None, gradient=gradient
    )
    assert [one is not None for one in found] == [True, True, has_scale, has_bias]
    for one, other in zip(found, full, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mean", [-2048.0, 65536.0])
def test_values_and_gradients_are_those_of_a_map_far_from_zero(mean):
    x, scale, bias, gradient = draw((3, 7, 64), mean=mean)
    out, *gradients = with_gradients(x, scale, bias, gradient=gradient)
    # The mean is rounded to a unit in its last place, and the map is shifted by as much.
    shift = 2.0**-23 * abs(mean)
    np.testing.assert_allclose(out, whiten(x)[0] * scale + bias, rtol=0, atol=shift)
    for found, exact in zip(gradients, exact_gradients(x, scale, gradient), strict=True):
        np.testing.assert_allclose(found, exact, rtol=0, atol=shift * np.abs(exact).max() + 1e-5)


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    x, scale, bias, gradient = draw((2, 56, 56, 12))
    x, gradient = jnp.asarray(x, jnp.bfloat16), jnp.asarray(gradient, jnp.bfloat16)
    out, of_x, *sums = with_gradients(x, scale, bias, gradient=gradient)
    exact_of_x, *exact_sums = exact_gradients(x, scale, gradient)
    assert out.dtype == of_x.dtype == jnp.bfloat16
    for found, exact in ((out, whiten(x)[0] * scale + bias), (of_x, exact_of_x)):
        # Half a unit of 8 significant bits, and float32's own error near zero.
        error = np.abs(np.asarray(found, np.float64) - exact)
        assert (error <= 2.0**-8 * np.abs(exact) + 2e-6).all()
    for found, exact in zip(sums, exact_sums, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6 * 56 * 56)


def test_only_the_input_and_two_numbers_a_pixel_are_kept_for_the_backward_pass():
    x, scale, bias, _ = draw((2, 9, 5, 64))
    half = jnp.asarray(x, jnp.bfloat16)
    _, pull_back = jax.vjp(normalise, half, scale, bias)
    kept = [(a.shape, a.dtype) for a in jax.tree.leaves(pull_back) if getattr(a, "ndim", 0) > 1]
    one_a_pixel = ((2, 9, 5, 1), jnp.float32)
    assert sorted(kept, key=str) == sorted([(half.shape, half.dtype)] + 2 * [one_a_pixel], key=str)


def definition(x, scale, bias):
    centred = x - jnp.mean(x, -1, keepdims=True)
    factor = 1.0 / jnp.sqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + EPSILON)
    return centred * factor * scale[None, None] + bias[None, None]


@pytest.mark.parametrize("order", [2, 3])
def test_higher_derivatives_equal_those_of_the_definition(order):
    *arrays, weights = draw((2, 3, 6))

    def derivative(function):
        def loss(*arrays):
            return jnp.sum(jnp.sin(function(*arrays)) * weights)

        def squares_of_the_gradient(loss):
            def run(*arrays):
                return sum(jnp.vdot(g, g) for g in jax.grad(loss, argnums=(0, 1, 2))(*arrays))

            return run

        for _ in range(order - 1):
            loss = squares_of_the_gradient(loss)
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*map(jnp.asarray, arrays))

    for one, other in zip(derivative(normalise), derivative(definition), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


def test_forward_mode_is_refused_with_what_works_instead():
    x, scale, bias, _ = map(jnp.asarray, draw((2, 3, 6)))
    with pytest.raises(TypeError, match=r"layer_norm has derivatives of reverse mode only.*jacrev"):
        jax.eval_shape(jax.jacfwd(lambda x: jnp.sum(normalise(x, scale, bias))), x)


@pytest.mark.parametrize("kind", ["auto", "explicit", "shard_map"])
def test_on_several_devices_gradients_are_those_of_the_whole(kind):
    x, scale, bias, gradient = map(jnp.asarray, draw((8, 5, 12)))
    expected = with_gradients(x, scale, bias, gradient=gradient)
    axis_type = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((4,), ("data",), (axis_type,), devices=jax.devices()[:4])
    split, whole = PartitionSpec("data"), PartitionSpec()

    def run(x, scale, bias, gradient):
        out, pull_back = jax.vjp(normalise, x, scale, bias)
        return out, *pull_back(gradient)

    if kind == "shard_map":
        specs = (split, whole, whole, split)
        run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=(split, split, whole, whole))
    with jax.set_mesh(mesh):
        x, gradient = (jax.device_put(a, jax.NamedSharding(mesh, split)) for a in (x, gradient))
        scale, bias = (jax.device_put(a, jax.NamedSharding(mesh, whole)) for a in (scale, bias))
        found = jax.jit(run)(x, scale, bias, gradient)
    assert [a.sharding.is_fully_replicated for a in found] == [False, False, True, True]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_integers_and_parameters_of_another_shape_are_refused():
    x, scale, _, _ = draw((2, 3, 6))
    refused = inspect.unwrap(layer_norm)  # without the tests' own check of types
    with pytest.raises(ValueError, match="x must be float32 or bfloat16, got int32; cast x"):
        refused(jnp.zeros((2, 6), jnp.int32), epsilon=EPSILON)
    with pytest.raises(ValueError, match=r"scale must have shape \(6,\), got \(5,\)"):
        refused(jnp.asarray(x), jnp.asarray(scale[:5]), epsilon=EPSILON)
