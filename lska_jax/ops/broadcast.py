"""One parameter a channel, broadcast over a map, computed in float32 and rounded once.

    add_bias: y = x + b        scale_by: y = s . x

A parameter that is rounded to bfloat16 before it meets the map has a bfloat16 sum over all pixels
for a gradient: of 100,352 ones XLA makes 4096, since a bfloat16 running sum stops where the next
summand is half a unit in its last place. Here the gradient of the parameter is a sum of float32
values, whatever the map is stored in, by autodiff alone: in forward and reverse mode, to any order.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def along_channels(
    parameter: Float[Array, " channels"], maps: Float[Array, "*pixels channels"]
) -> Float[Array, "*ones channels"]:
    """Return a parameter (C,) as (1, ..., 1, C), of the rank of the maps."""
    return lax.expand_dims(parameter, range(maps.ndim - 1))


def add_bias(
    maps: Float[Array, "*pixels channels"], bias: Float[Array, " channels"]
) -> Float[Array, "*pixels channels"]:
    """Add a bias to every pixel.

    Args:
      maps: (..., C), float32 or bfloat16.
      bias: (C,) float32.

    Returns:
      (..., C) in the dtype of ``maps``.
    """
    wide = maps.astype(jnp.float32)
    return (wide + along_channels(bias.astype(jnp.float32), maps)).astype(maps.dtype)


def scale_by(
    maps: Float[Array, "*pixels channels"], factor: Float[Array, " channels"]
) -> Float[Array, "*pixels channels"]:
    """Multiply every pixel by one factor a channel; arguments and result as ``add_bias``."""
    wide = maps.astype(jnp.float32)
    return (wide * along_channels(factor.astype(jnp.float32), maps)).astype(maps.dtype)
