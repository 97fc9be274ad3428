"""Means over windows that share out a map: against NumPy, at sizes above and below the windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.pooling import adaptive_mean


@jax.jit
def pooled(maps: jax.Array) -> jax.Array:
    return adaptive_mean(maps, 7)


def by_definition(maps: np.ndarray, side: int) -> np.ndarray:
    """Return the means, window by window, in float64."""
    _, height, width, _ = maps.shape
    result = np.empty((maps.shape[0], side, side, maps.shape[-1]))
    for i in range(side):
        for j in range(side):
            rows = slice(i * height // side, int(np.ceil((i + 1) * height / side)))
            columns = slice(j * width // side, int(np.ceil((j + 1) * width / side)))
            result[:, i, j] = maps[:, rows, columns].astype(np.float64).mean((1, 2))
    return result


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [(14, 7), (13, 8), (3, 1)])
def test_windows_share_out_a_map_of_any_size(size):
    maps = draw(2, *size, 3)
    # Float32 sums of some dozen values.
    np.testing.assert_allclose(pooled(maps), by_definition(maps, 7), rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_the_definition():
    maps, direction = draw(1, 9, 4, 2), draw(1, 7, 7, 2)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(pooled(x) * direction)))(maps)
    # Linear in the map: the gradient along any change is the change of the result.
    change = draw(1, 9, 4, 2)[..., ::-1]
    expected = (by_definition(change, 7) * direction).sum()
    assert np.sum(np.asarray(gradient, np.float64) * change) == pytest.approx(expected, rel=1e-5)


def test_bfloat16_is_summed_in_float32():
    # A bfloat16 sum of so many ones would stop at 256.
    ones = jnp.ones((1, 280, 280, 1), jnp.bfloat16)
    means = pooled(ones)
    assert means.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(means, np.float32), 1)
