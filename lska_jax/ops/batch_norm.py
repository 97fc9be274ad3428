"""Batch normalisation (arXiv 1502.03167, algorithm 1) in two passes, and its gradient in two.

    y = (x - mean) / sqrt(var + eps) * scale + bias

One pass takes both moments, one writes y. Autodiff would keep float32 maps for the backward pass
and read them several times; here x is kept in its own dtype. Derivatives of the gradient are
autodiff's, of the definition.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.broadcast import along_channels
from lska_jax.ops.platform import vary_alike
from lska_jax.ops.reduction import sum_over_pixels
from lska_jax.ops.reverse_mode import reverse_mode_only

_Channels = Float[Array, " channels"]
# Squared distance of a pivot from the mean, in variances, beyond which the squares' float32
# rounding, 6e-8 of each, would be more than some millionths of the variance.
_FARTHEST = 64.0
# Below it a variance does not matter beside an epsilon of 1e-5: constant channels need no care.
_LEAST_VARIANCE = 1e-5


def moments(
    x: Float[Array, "*pixels channels"], pivot: _Channels | None = None
) -> tuple[_Channels, _Channels]:
    """Return mean and biased variance of every channel, (C,) float32 each, in one pass over x.

    They carry no gradient: ``normalise`` accounts for what they have of x. Squares are summed of
    the distances from a pivot: those of values far from zero would be rounded by more than a small
    variance. Where the pivot turns out to be too far from the mean, as zero may be in the first
    step, a second pass takes the mean itself: no worse than two passes, and rarely more than one.

    Args:
      x: (..., C), float32 or bfloat16.
      pivot: (C,) float32 near the mean, such as a running mean; where it is not finite zero counts.
        None is zero.
    """
    x, pivot = lax.stop_gradient((x, pivot))
    maps = _as_maps(x)
    if pivot is None:
        pivot = jnp.zeros(x.shape[-1], jnp.float32)
    pivot = jnp.where(jnp.isfinite(pivot), pivot, 0.0)
    offset, variance = _moments_about(pivot, maps)
    mean = pivot + offset
    is_far = jnp.any(jnp.square(offset) > _FARTHEST * (variance + _LEAST_VARIANCE))

    def take_the_mean(maps: Array) -> tuple[Array, Array]:
        # Plain means, not the sums in blocks of the first pass: rarely run, but always compiled.
        centred = maps.astype(jnp.float32) - along_channels(mean, maps)
        axes = tuple(range(maps.ndim - 1))
        rest = jnp.mean(centred, axes)
        return mean + rest, jnp.mean(jnp.square(centred), axes) - jnp.square(rest)

    # The maps are an operand, which a closure would be as well: said, so that it is seen.
    return lax.cond(is_far, take_the_mean, lambda _: (mean, variance), maps)


def _moments_about(pivot: Array, maps: Array) -> tuple[Array, Array]:
    """Return how far the mean lies from the pivot, and the variance, in one pass."""
    centred = maps.astype(jnp.float32) - along_channels(pivot, maps)
    total, total_of_squares = sum_over_pixels([centred, jnp.square(centred)])
    count = maps.size // maps.shape[-1]
    offset = total / count
    # Rounding can leave less than zero of a channel that is constant.
    return offset, jnp.maximum(total_of_squares / count - jnp.square(offset), 0.0)


@reverse_mode_only
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
    return _normalise(*vary_alike((x, scale, bias, statistics)), epsilon)


def affine(
    x: Float[Array, "*pixels channels"], mean: _Channels, factor: _Channels, bias: _Channels
) -> Float[Array, "*pixels channels"]:
    """Return (x - mean) factor + bias in the dtype of x, computed in float32."""
    mean, factor, bias = (along_channels(vector, x) for vector in (mean, factor, bias))
    return ((x.astype(jnp.float32) - mean) * factor + bias).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise(
    x: Array, scale: Array, bias: Array, statistics: tuple[Array, Array], epsilon: float
) -> Array:
    mean, variance = statistics
    factor = scale * lax.rsqrt(variance + epsilon)
    return affine(x, mean, factor, bias)


def _normalise_forward(
    x: Array, scale: Array, bias: Array, statistics: tuple[Array, Array], epsilon: float
) -> tuple[Array, tuple[Array, Array, tuple[Array, Array]]]:
    return _normalise(x, scale, bias, statistics, epsilon), (x, scale, statistics)


def _normalise_backward(
    epsilon: float,
    residuals: tuple[Array, Array, tuple[Array, Array]],
    gradient: Array,
) -> tuple[Array, Array, Array, tuple[Array, Array]]:
    x, scale, statistics = residuals
    gradients = _pull_back(x, scale, statistics, gradient, epsilon)
    return *gradients, jax.tree.map(jnp.zeros_like, statistics)


_normalise.defvjp(_normalise_forward, _normalise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _pull_back(
    x: Array, scale: Array, statistics: tuple[Array, Array], gradient: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """Return the gradients of x, scale and bias from that of the output."""
    mean, variance = statistics
    inverse_deviation = lax.rsqrt(variance + epsilon)
    whitened = (x.astype(jnp.float32) - along_channels(mean, x)) * along_channels(
        inverse_deviation, x
    )
    wide = gradient.astype(jnp.float32)
    bias_gradient, scale_gradient = sum_over_pixels([_as_maps(wide), _as_maps(wide * whitened)])
    count = x.size // x.shape[-1]
    of_bias, of_scale, factor = (
        along_channels(vector, x)
        for vector in (bias_gradient, scale_gradient, scale * inverse_deviation)
    )
    x_gradient = factor * (wide - (of_bias + whitened * of_scale) / count)
    return x_gradient.astype(x.dtype), scale_gradient, bias_gradient


def _pull_back_forward(
    x: Array, scale: Array, statistics: tuple[Array, Array], gradient: Array, epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, tuple[Array, Array], Array]]:
    gradients = _pull_back(x, scale, statistics, gradient, epsilon)
    return gradients, (x, scale, statistics, gradient)


def _pull_back_backward(
    epsilon: float,
    residuals: tuple[Array, Array, tuple[Array, Array], Array],
    cotangents: tuple[Array, Array, Array],
) -> tuple[Array, Array, tuple[Array, Array], Array]:
    x, scale, statistics, gradient = residuals

    def pull_back(x: Array, scale: Array, gradient: Array) -> Any:
        define = functools.partial(_normalise_by_definition, epsilon=epsilon)
        return jax.vjp(define, x, scale, jnp.zeros_like(scale))[1](gradient)

    _, again = jax.vjp(pull_back, x, scale, gradient)
    of_x, of_scale, of_gradient = again(cotangents)
    # The moments are functions of x, and counted there.
    return of_x, of_scale, jax.tree.map(jnp.zeros_like, statistics), of_gradient


_pull_back.defvjp(_pull_back_forward, _pull_back_backward)


def _normalise_by_definition(x: Array, scale: Array, bias: Array, *, epsilon: float) -> Array:
    wide = x.astype(jnp.float32)
    pixels = tuple(range(x.ndim - 1))
    centred = wide - jnp.mean(wide, pixels, keepdims=True)
    variance = jnp.mean(jnp.square(centred), pixels, keepdims=True)
    whitened = centred * lax.rsqrt(variance + epsilon)
    return (whitened * along_channels(scale, x) + along_channels(bias, x)).astype(x.dtype)


def _as_maps(x: Array) -> Array:
    return x if x.ndim == 4 else x.reshape(1, -1, 1, x.shape[-1])
