"""Parameters that are broadcast over a map, and their float32 gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.broadcast import add_bias, scale_by

OPERATIONS = {"add_bias": (add_bias, np.add), "scale_by": (scale_by, np.multiply)}
each = pytest.mark.parametrize("operation", [add_bias, scale_by])


@pytest.mark.parametrize(("ours", "definition"), OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (7, 4), (4,)], ids=str)
def test_a_parameter_meets_every_pixel(ours, definition, shape):
    rng = np.random.default_rng(0)
    maps, parameter = (rng.standard_normal(s).astype(np.float32) for s in (shape, shape[-1:]))
    out = ours(jnp.asarray(maps), jnp.asarray(parameter))
    np.testing.assert_array_equal(out, definition(maps, parameter))


@pytest.mark.parametrize(("ours", "definition"), OPERATIONS.values(), ids=OPERATIONS)
def test_bfloat16_maps_are_rounded_once_and_the_parameter_is_not(ours, definition):
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.standard_normal((2, 3, 5, 4)), jnp.bfloat16)
    parameter = rng.standard_normal(4).astype(np.float32)
    expected = definition(np.asarray(maps, np.float32), parameter)
    np.testing.assert_array_equal(
        ours(maps, jnp.asarray(parameter)), jnp.asarray(expected, jnp.bfloat16)
    )


@each
def test_the_gradient_of_the_parameter_counts_every_pixel_of_a_large_bfloat16_map(operation):
    maps = jnp.ones((8, 112, 112, 2), jnp.bfloat16)
    parameter = jnp.ones(2, jnp.float32)
    _, pull_back = jax.vjp(operation, maps, parameter)
    gradient = jax.jit(pull_back)(maps)[1]
    # Summed in bfloat16 it is 4096: a running sum stops where one more is half a unit.
    np.testing.assert_array_equal(gradient, np.full(2, 8 * 112 * 112, np.float32))
    assert gradient.dtype == jnp.float32


@each
def test_derivatives_of_both_modes_and_of_second_order_are_those_of_the_definition(operation):
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.standard_normal((2, 3, 4)), jnp.float32)
    parameter = jnp.asarray(rng.standard_normal(4), jnp.float32)

    def loss(parameter):
        return jnp.sum(operation(maps, parameter) ** 3)

    def definition(parameter):
        wide = jnp.broadcast_to(parameter, maps.shape)
        return jnp.sum((maps + wide if operation is add_bias else maps * wide) ** 3)

    for derivative in (jax.jacfwd, jax.jacrev, jax.hessian):
        ours, expected = (jax.jit(derivative(f))(parameter) for f in (loss, definition))
        # Sums of six products in another order.
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


@each
def test_vmap_over_maps_and_parameters_equals_a_loop(operation):
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.standard_normal((3, 2, 5, 4)), jnp.bfloat16)
    parameters = jnp.asarray(rng.standard_normal((3, 4)), jnp.float32)
    looped = [operation(m, p) for m, p in zip(maps, parameters, strict=True)]
    np.testing.assert_array_equal(jax.vmap(operation)(maps, parameters), jnp.stack(looped))
