"""The exact GELU against its definition in float64."""

import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops import gelu

POINTS = np.linspace(-20.0, 20.0, 4001).astype(np.float32)


def exact(points):
    """Return gelu and its derivative in float64."""
    points = points.astype(np.float64)
    distribution = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in points])
    density = np.exp(-0.5 * points**2) / math.sqrt(2.0 * math.pi)
    return points * distribution, distribution + points * density


def test_value_and_derivative_equal_the_definition():
    value, derivative = jax.jit(lambda x: (gelu(x), jax.vjp(gelu, x)[1](jnp.ones_like(x))[0]))(
        POINTS
    )
    for ours, wanted in zip((value, derivative), exact(POINTS), strict=True):
        # Two units in the last place of x, or of 1 near zero: erf's own rounding times x.
        bound = 2 * 2.0**-23 * np.maximum(np.abs(POINTS), 1.0)
        assert (np.abs(ours - wanted) <= bound).all()


def test_bfloat16_is_rounded_once():
    points = jnp.asarray(POINTS, jnp.bfloat16)
    wanted, _ = exact(np.asarray(points, np.float32))
    out = gelu(points)
    assert out.dtype == jnp.bfloat16
    # Half a unit of 8 significant bits, and float32's own error where little is left of x.
    error = np.abs(np.asarray(out, np.float32).astype(np.float64) - wanted)
    assert (error <= 2.0**-8 * np.abs(wanted) + 2e-6).all()


@pytest.mark.parametrize(("point", "value", "slope"), [(-np.inf, 0.0, 0.0), (-50.0, 0.0, 0.0)])
def test_far_below_zero_both_are_zero_and_not_nan(point, value, slope):
    point = jnp.float32(point)
    assert gelu(point) == value
    assert jax.grad(gelu)(point) == slope


def test_integers_are_refused():
    with pytest.raises(ValueError, match="x must be float32 or bfloat16, got int32; cast x"):
        inspect.unwrap(gelu)(jnp.arange(3))


def test_nan_stays_nan():
    assert jnp.isnan(gelu(jnp.float32(jnp.nan)))
    assert jnp.isnan(jax.grad(gelu)(jnp.float32(jnp.nan)))


def test_only_the_input_is_kept_for_the_backward_pass():
    points = jnp.asarray(POINTS, jnp.bfloat16)
    _, pull_back = jax.vjp(gelu, points)
    kept = [leaf for leaf in jax.tree.leaves(pull_back) if getattr(leaf, "size", 0) > 1]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [(points.shape, points.dtype)]


def test_the_compiled_backward_pass_does_not_wait_for_a_map_of_the_forward_pass():
    def run(x, gradient):
        out, pull_back = jax.vjp(gelu, x)
        return out, *pull_back(gradient)

    maps = jax.ShapeDtypeStruct((256, 1024), jnp.float32)
    text = jax.jit(run).lower(maps, maps).compile().as_text()
    # One for each pass: a single erf would be kept for both.
    assert len(re.findall(r" erf\(", text)) == 2


def test_the_gradient_of_a_gradient_equals_the_definition():
    points = jnp.asarray(POINTS[np.abs(POINTS) < 6])
    found = jax.vmap(jax.grad(jax.grad(gelu)))(points)
    exact = np.asarray(points, np.float64)
    density = np.exp(-0.5 * exact**2) / math.sqrt(2.0 * math.pi)
    # gelu'' = (2 - x^2) phi
    np.testing.assert_allclose(found, (2.0 - exact**2) * density, rtol=0, atol=2e-6)
