"""Rounding in whole numbers is the compiler's own conversion, bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops import rounding
from lska_jax.ops.rounding import round_to


def bits(values):
    return np.asarray(values).view(np.uint16)


def test_every_upper_half_rounds_as_the_compiler_rounds_it():
    upper = np.arange(2**16, dtype=np.uint32) << 16
    # At, just below and just above half of the last place, and the ends.
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper[:, None] | lower).view(np.float32)
    values = jnp.asarray(values[~np.isnan(values)])
    np.testing.assert_array_equal(
        bits(round_to(values, jnp.bfloat16)), bits(values.astype("bfloat16"))
    )


@pytest.mark.parametrize("pattern", [0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFFC00000, 0xFFFFFFFF])
def test_every_nan_stays_one(pattern):
    value = jnp.asarray(np.array([pattern], np.uint32).view(np.float32))
    assert jnp.isnan(round_to(value, jnp.bfloat16)).all()


def test_derivatives_pass_through_in_both_modes():
    x = jnp.asarray([0.1, -2.7], jnp.float32)
    narrow = jnp.asarray([1.5, 0.25], jnp.bfloat16)
    _, tangent = jax.jvp(lambda x: round_to(x, jnp.bfloat16), (x,), (x,))
    np.testing.assert_array_equal(bits(tangent), bits(x.astype(jnp.bfloat16)))
    (gradient,) = jax.vjp(lambda x: round_to(x, jnp.bfloat16), x)[1](narrow)
    assert gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, narrow.astype(jnp.float32))


def test_other_dtypes_and_platforms_convert_as_ever(monkeypatch):
    def traced(dtype):
        return str(jax.make_jaxpr(lambda x: round_to(x, dtype))(jnp.ones((3,), jnp.float32)))

    assert "bitcast" in traced("bfloat16")
    assert "bitcast" not in traced("float32")
    monkeypatch.setattr(rounding, "target_platform", lambda: "tpu")
    assert "bitcast" not in traced("bfloat16")
