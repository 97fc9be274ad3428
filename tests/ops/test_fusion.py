"""What keeps XLA from merging operations changes no value and no derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.fusion import written_out


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_value_is_left_as_it_is(dtype):
    least = float(jnp.finfo(dtype).min)
    x = jnp.asarray([0.0, -0.0, 1.5, least, -least, jnp.inf, -jnp.inf, jnp.nan], dtype)
    found = jax.jit(written_out)(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(x, np.float32))
    np.testing.assert_array_equal(np.signbit(found[:2]), [False, True])


def test_derivatives_pass_through_to_any_order():
    x, t = jnp.asarray([2.0, -3.0]), jnp.asarray([5.0, 7.0])
    _, tangent = jax.jvp(written_out, (x,), (t,))
    np.testing.assert_array_equal(tangent, t)

    def cube(x):
        return jnp.sum(written_out(x) ** 3)

    np.testing.assert_array_equal(jax.grad(cube)(x), 3 * x**2)
    np.testing.assert_array_equal(jax.hessian(cube)(x), jnp.diag(6 * x))


@pytest.mark.parametrize(("backend", "is_used"), [("cpu", True), ("tpu", False), ("gpu", False)])
def test_only_cpu_gets_an_operation(backend, is_used, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    # A function of its own, since JAX keeps the trace of a function for its shapes.
    traced = jax.make_jaxpr(lambda x: 2 * written_out(x))(jnp.zeros(4))
    assert ("select_n" in str(traced)) == is_used
