"""1x1 convolution: a matrix product over channels, laid out as each backend likes it.

    y[b, i, j, :] = x[b, i, j, :] W + bias

One matrix (B H W, C) and a product over four axes are the same numbers and not the same speed. On
CPU the weight gradient of the first runs several times as fast. On TPU XLA keeps maps as
(H, W, B, C), and the reshape of the first makes it copy every map into another order and back: most
of what a train step of a VAN moved (docs/performance.md).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAST_WITH_FIRST = (((3,), (0,)), ((), ()))
_LAST_WITH_LAST = (((3,), (1,)), ((), ()))
_ALL_BUT_LAST = (((0, 1, 2), (0, 1, 2)), ((), ()))


@jax.custom_vjp
def pointwise_conv(
    images: Float[Array, "batch height width in_channels"],
    kernel: Float[Array, "in_channels channels"],
) -> Float[Array, "batch height width channels"]:
    """Mix channels pixel by pixel.

    Args:
      images: (B, H, W, in_channels), float32 or bfloat16.
      kernel: (in_channels, C), cast to the dtype of ``images``; its gradient keeps its own dtype.

    Returns:
      (B, H, W, C) in the dtype of ``images``.
    """
    return lax.dot_general(images, kernel.astype(images.dtype), _LAST_WITH_FIRST)


def _forward(images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise_conv(images, kernel), (images, kernel)


def _backward(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    images_gradient = lax.dot_general(gradient, kernel.astype(gradient.dtype), _LAST_WITH_LAST)
    kernel_gradient = lax.platform_dependent(
        images, gradient, cpu=_sum_as_matrices, default=_sum_over_maps
    )
    return images_gradient, kernel_gradient.astype(kernel.dtype)


pointwise_conv.defvjp(_forward, _backward)


def _sum_over_maps(images: Array, gradient: Array) -> Array:
    return lax.dot_general(images, gradient, _ALL_BUT_LAST, preferred_element_type=jnp.float32)


def _sum_as_matrices(images: Array, gradient: Array) -> Array:
    pixels, of_pixels = (x.reshape(-1, x.shape[-1]) for x in (images, gradient))
    return lax.dot_general(
        pixels, of_pixels, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
