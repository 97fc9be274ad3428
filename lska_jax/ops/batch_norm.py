"""Batch normalisation (arXiv 1502.03167, algorithm 1) in two passes, and its gradient in two.

    y = (x - mean) / sqrt(var + eps) * scale + bias

One pass takes both moments, one writes y. Autodiff would keep float32 maps for the backward pass
and read them several times; here x is kept in its own dtype.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.reduction import sum_over_pixels

_Channels = Float[Array, " channels"]


def moments(x: Float[Array, "*pixels channels"]) -> tuple[_Channels, _Channels]:
    """Return mean and biased variance of every channel, (C,) float32 each, in one pass over x.

    They carry no gradient: ``normalise`` accounts for what they have of x.

    Args:
      x: (..., C), float32 or bfloat16.
    """
    wide = lax.stop_gradient(x).astype(jnp.float32)
    count = x.size // x.shape[-1]
    total, total_of_squares = sum_over_pixels([_as_maps(wide), _as_maps(jnp.square(wide))])
    mean = total / count
    # Rounding can leave less than zero of a variance that is small against the mean.
    return mean, jnp.maximum(total_of_squares / count - jnp.square(mean), 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(
    x: Float[Array, "*pixels channels"],
    scale: _Channels,
    bias: _Channels,
    statistics: tuple[_Channels, _Channels],
    epsilon: float,
) -> Float[Array, "*pixels channels"]:
    """Normalise x by its own moments; the gradient is that of the whole, moments included.

    Args:
      x: (..., C), float32 or bfloat16.
      scale: (C,) float32.
      bias: (C,) float32.
      statistics: ``moments(x)``.
      epsilon: added to the variance.

    Returns:
      (..., C) in the dtype of x, computed in float32.
    """
    mean, variance = statistics
    factor = scale * lax.rsqrt(variance + epsilon)
    return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


def _normalise_forward(
    x: Array, scale: Array, bias: Array, statistics: tuple[Array, Array], epsilon: float
) -> tuple[Array, tuple[Array, Array, tuple[Array, Array]]]:
    return normalise(x, scale, bias, statistics, epsilon), (x, scale, statistics)


def _normalise_backward(
    epsilon: float,
    residuals: tuple[Array, Array, tuple[Array, Array]],
    gradient: Array,
) -> tuple[Array, Array, Array, tuple[Array, Array]]:
    x, scale, (mean, variance) = residuals
    inverse_deviation = lax.rsqrt(variance + epsilon)
    whitened = (x.astype(jnp.float32) - mean) * inverse_deviation
    wide = gradient.astype(jnp.float32)
    bias_gradient, scale_gradient = sum_over_pixels([_as_maps(wide), _as_maps(wide * whitened)])
    count = x.size // x.shape[-1]
    shared = (bias_gradient + whitened * scale_gradient) / count
    x_gradient = (scale * inverse_deviation) * (wide - shared)
    nothing = (jnp.zeros_like(mean), jnp.zeros_like(variance))
    return x_gradient.astype(x.dtype), scale_gradient, bias_gradient, nothing


normalise.defvjp(_normalise_forward, _normalise_backward)


def _as_maps(x: Array) -> Array:
    return x if x.ndim == 4 else x.reshape(1, -1, 1, x.shape[-1])
