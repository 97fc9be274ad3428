"""1x1 convolutions and GELU on the rows of a block, inside a kernel."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lska_jax.ops.activation import LEAST
from lska_jax.ops.pallas.blocks import SUBLANES


def dot(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """Return the float32 product of two matrices over one axis of each."""
    precision = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return lax.dot_general(
        left,
        right,
        (((left_axis,), (right_axis,)), ((), ())),
        precision=precision,
        preferred_element_type=jnp.float32,
    )


def as_matrix(row: jax.Array, dtype: Any) -> jax.Array:
    """Return a float32 row (W, B, C) as a matrix (W B, C); B is whole sublanes, so this is free."""
    return row.reshape(-1, row.shape[-1]).astype(dtype)


def gelu(x: jax.Array) -> jax.Array:
    """Return the exact (erf) GELU of float32 values."""
    x = jnp.maximum(x, LEAST)
    return x * _normal_share(x)


def gelu_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the exact GELU of float32 values and its derivative."""
    x = jnp.maximum(x, LEAST)
    share = _normal_share(x)
    density = jnp.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return x * share, share + x * density


def _normal_share(x: jax.Array) -> jax.Array:
    return 0.5 * (1.0 + lax.erf(x * math.sqrt(0.5)))


def whole_sublanes(images: jax.Array) -> jax.Array:
    """Append images of zeros until the batch, the sublanes of a block, is whole tiles.

    Where the gradient is zero, they add nothing to the sums over the batch.
    """
    return jnp.pad(images, ((0, -images.shape[0] % SUBLANES), (0, 0), (0, 0), (0, 0)))


def images_of_a_block(shape: tuple[int, ...], *, pixels: int) -> int:
    """Return how many images make a row of a block at most ``pixels`` long, and divide the batch.

    Args:
      shape: (B, H, W, C), B a multiple of 8.
      pixels: rows of the matrices that a kernel multiplies.
    """
    batch, _, width, _ = shape
    most = SUBLANES * max(1, pixels // (width * SUBLANES))
    return max(b for b in range(SUBLANES, most + 1, SUBLANES) if batch % b == 0)
