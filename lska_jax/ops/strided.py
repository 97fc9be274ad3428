"""Strided convolution of all channels: stems and overlapping patch embeddings.

``lax.conv_general_dilated``, but on CPU in another form where that was measured to be faster
(docs/performance/notes.md):

- with a channel of zeros more where the channels to read are odd in number, as an image's are, and
  those to write more than 16 and at most 32: XLA's convolution takes 2 to 11 times as long without.
- as one product of gathered patches where the channels to read are many: XLA's convolution leaves
  most of it to one core, and of bfloat16, a product where the processor has it, widens both sides.

Gradients are those of ``lax`` on what was given, which are faster.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.images_in_turn import in_turn
from lska_jax.ops.platform import target_platform, vary_alike
from lska_jax.ops.pointwise import pointwise_conv
from lska_jax.ops.processor import multiplies_bfloat16
from lska_jax.ops.reverse_mode import reverse_mode_only

# Channels to write that XLA's convolution on CPU is slow with.
_SLOW_CHANNELS = range(17, 33)
# Of 32 channels the gathering takes what the product gains.
_MANY_CHANNELS = 64


@reverse_mode_only
def strided_conv(
    images: Float[Array, "batch height width in_channels"],
    kernel: Float[Array, "size size in_channels channels"],
    *,
    stride: int,
    padding: int,
) -> Float[Array, "batch out_height out_width channels"]:
    """Convolve, every ``stride`` pixels.

    Args:
      images: (B, H, W, in_channels), float32 or bfloat16.
      kernel: (size, size, in_channels, C), cast to the dtype of ``images``.
      stride: along both axes, in pixels.
      padding: with zeros on every side, in pixels.

    Returns:
      (B, H', W', C), H' = (H + 2 padding - size) // stride + 1, in the dtype of ``images``; of a
      product float32, not yet rounded to it.
    """
    kernel = kernel.astype(images.dtype)
    forward = _faster_form(images, kernel, stride)
    if forward is None:
        return _as_convolution(images, kernel, stride, padding)
    return _convolve(*vary_alike((images, kernel)), stride, padding, forward)


def _faster_form(images: Array, kernel: Array, stride: int) -> Callable[..., Array] | None:
    """Return what is faster than ``lax`` where the program is to run, None for nothing."""
    size, _, in_channels, channels = kernel.shape
    is_fixed = isinstance(images.shape[0], int)  # an export's symbolic batch is left to lax
    if target_platform() != "cpu" or not is_fixed or 0 in images.shape:
        return None
    if in_channels % 2 and channels in _SLOW_CHANNELS:
        return _with_one_channel_more
    is_multiplied = images.dtype == jnp.float32 or multiplies_bfloat16()
    if is_multiplied and in_channels >= _MANY_CHANNELS and size > stride > 1:
        return _as_product
    return None


def _as_convolution(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _with_one_channel_more(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    images = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))
    return _as_convolution(images, kernel, stride, padding)


def _as_product(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    size, _, _, channels = kernel.shape
    rows, columns = (_places(side, size, stride, padding) for side in images.shape[1:3])
    matrix = kernel.reshape(-1, channels)

    def convolve(images: Array, matrix: Array) -> Array:
        patches = _gather(images, size, stride, padding)
        return pointwise_conv(patches, matrix, dtype=jnp.float32)

    size_between = 4 * rows * columns * matrix.shape[0]
    return in_turn(convolve, images, matrix, bytes_an_image=size_between)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
    images: Array, kernel: Array, stride: int, padding: int, forward: Callable[..., Array]
) -> Array:
    return forward(images, kernel, stride, padding)


def _forward(
    images: Array, kernel: Array, stride: int, padding: int, forward: Callable[..., Array]
) -> tuple[Array, tuple[Array, Array]]:
    return forward(images, kernel, stride, padding), (images, kernel)


def _backward(
    stride: int,
    padding: int,
    forward: Callable[..., Array],
    residuals: tuple[Array, Array],
    gradient: Array,
) -> tuple[Array, Array]:
    def convolve(images: Array, kernel: Array) -> Array:
        return _as_convolution(images, kernel, stride, padding)

    of_images: Array
    of_images, of_kernel = jax.vjp(convolve, *residuals)[1](gradient.astype(residuals[0].dtype))
    return of_images, of_kernel


_convolve.defvjp(_forward, _backward)


def _places(side: int, size: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - size) // stride + 1


def _gather(images: Array, size: int, stride: int, padding: int) -> Array:
    """Return (B, H', W', size * size * in_channels): what each place sees, in the kernel's order.

    Args:
      images: (B, H, W, in_channels).
      size: of the kernel.
      stride: in pixels.
      padding: on every side, in pixels.
    """
    rows, columns = (_places(side, size, stride, padding) for side in images.shape[1:3])
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, edges)
    pieces = [
        padded[
            :,
            row : row + (rows - 1) * stride + 1 : stride,
            column : column + (columns - 1) * stride + 1 : stride,
        ]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(pieces, axis=-1)
