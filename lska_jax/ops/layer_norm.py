"""Layer normalisation over channels (arXiv 1607.06450, eq. 3) with a gradient of its own.

    y = w * scale + bias,    w = (x - mean) / sqrt(var + eps)

Mean and variance are those of one pixel's, or token's, channels. Autodiff would keep whole float32
maps for the backward pass; here x is kept in its own dtype, with two numbers a pixel. With v for
scale * dy and <.> for the mean over channels,

    dx = (v - <v> - w <v w>) / sqrt(var + eps)
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.broadcast import along_channels
from lska_jax.ops.checks import check_dtype, check_parameter
from lska_jax.ops.fusion import written_out
from lska_jax.ops.platform import target_platform, vary_alike
from lska_jax.ops.reverse_mode import reverse_mode_only

_Residuals = tuple[Array, Array, Array, Array | None, Array | None]


@reverse_mode_only
def layer_norm(
    x: Float[Array, "*pixels channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    epsilon: float,
) -> Float[Array, "*pixels channels"]:
    """Normalise every pixel, or token, over its channels.

    The variance is the mean square of what is left without the mean: a mean of squares less a
    squared mean is lost in rounding where the mean is large.

    Args:
      x: (..., C), float32 or bfloat16.
      scale: (C,); None is one.
      bias: (C,); None is zero.
      epsilon: added to the variance.

    Returns:
      (..., C) in the dtype of x, computed in float32. Gradients are reverse mode; those of scale
      and bias are summed in float32.

    Raises:
      ValueError: x of another dtype, or a scale or bias of another shape or not floating-point.
    """
    check_dtype("x", x)
    for name, parameter in (("scale", scale), ("bias", bias)):
        if parameter is not None:
            check_parameter(name, parameter, (x.shape[-1],))
    return _normalise(epsilon, *vary_alike((x, _widen(scale), _widen(bias))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalise(epsilon: float, x: Array, scale: Array | None, bias: Array | None) -> Array:
    return _forward(epsilon, x, scale, bias)[0]


def _forward(
    epsilon: float, x: Array, scale: Array | None, bias: Array | None
) -> tuple[Array, _Residuals]:
    wide = x.astype(jnp.float32)
    mean = _mean_over_channels(wide)
    centred = wide - mean
    factor = lax.rsqrt(_mean_over_channels(jnp.square(centred)) + epsilon)
    out = centred * factor
    if scale is not None:
        out = out * along_channels(scale, x)
    if bias is not None:
        out = out + along_channels(bias, x)
    return out.astype(x.dtype), (x, mean, factor, scale, bias)


def _backward(
    epsilon: float, residuals: _Residuals, gradient: Array
) -> tuple[Array, Array | None, Array | None]:
    # Plain operations on what is kept, which is a function of x: autodiff has their derivatives.
    x, mean, factor, scale, bias = residuals
    wide = gradient.astype(jnp.float32)
    whitened = (x.astype(jnp.float32) - mean) * factor
    product = wide * whitened
    of_whitened = wide if scale is None else wide * along_channels(scale, x)
    rest = _mean_over_channels(wide, scale) + whitened * _mean_over_channels(product, scale)
    # What sums over it, as a depth-wise convolution's kernel gradient does, is to read it as it is.
    x_gradient = written_out((factor * (of_whitened - rest)).astype(x.dtype))
    pixels = tuple(range(x.ndim - 1))
    scale_gradient = None if scale is None else jnp.sum(product, pixels)
    bias_gradient = None if bias is None else jnp.sum(wide, pixels)
    return x_gradient, scale_gradient, bias_gradient


_normalise.defvjp(_forward, _backward)


def _mean_over_channels(maps: Array, weights: Array | None = None) -> Array:
    """Return the mean of float32 maps (..., C), times weights (C,) if given, as (..., 1)."""
    channels = maps.shape[-1]
    if target_platform() == "cpu":
        # A product with a vector: several times as fast as XLA's sum over the last axis, and it
        # reads a map as it lies in memory. Into a sum XLA would merge half of what computes it, of
        # a depth-wise convolution half of the additions, and write out the operands of the others.
        ones = jnp.ones((channels,), jnp.float32) if weights is None else weights
        total = lax.dot_general(maps, ones, (((maps.ndim - 1,), (0,)), ((), ())))
    else:
        total = jnp.sum(maps if weights is None else maps * along_channels(weights, maps), -1)
    return lax.expand_dims(total / channels, (maps.ndim - 1,))


def _widen(parameter: Array | None) -> Array | None:
    return None if parameter is None else parameter.astype(jnp.float32)
