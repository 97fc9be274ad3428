"""Convolution of all channels with any stride: stems, overlapping patch embeddings, dense heads.

``lax.conv_general_dilated``, but on CPU in another form where that was measured to be faster
(docs/performance/notes.md):

- with a channel of zeros more where the channels to read are odd in number, as an image's are, and
  those to write more than 16 and at most 32: XLA's convolution takes 2 to 11 times as long without.
- as one product of gathered patches where the channels to read are many: XLA's convolution leaves
  most of it to one core, and of bfloat16, a product where the processor has it, widens both sides.

The gradient of a kernel is there one product of maps shifted by columns and gradients shifted by
rows, beside one another; with a stride one for each row of the kernel. XLA's convolution of two
maps takes 1.3 to 12 times as long, the longer the larger they are. (Not of stems, nor with a stride
on processors with wide vectors: there it is as fast.) That of the images is ``lax``'s.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.images_in_turn import in_turn
from lska_jax.ops.platform import explicit_spec_of, target_platform, vary_alike
from lska_jax.ops.pointwise import kernel_gradient, pointwise_conv
from lska_jax.ops.processor import has_wide_vectors, multiplies_bfloat16
from lska_jax.ops.reverse_mode import reverse_mode_only

_Pair = tuple[int, int]

# Channels to write that XLA's convolution on CPU is slow with.
_SLOW_CHANNELS = range(17, 33)
# Of 32 channels the gathering takes what the product gains.
_MANY_CHANNELS = 64
# Columns of a product for one row of a kernel: of the 21 of a stem it is slower than ``lax``.
_LEAST_COLUMNS = 48


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
    is_fixed = isinstance(images.shape[0], int)  # an export's symbolic batch is left to lax
    if target_platform() != "cpu" or not is_fixed or 0 in images.shape:
        return _as_convolution(images, kernel, stride, padding)
    forward = _faster_form(images, kernel, stride)
    return _convolve(*vary_alike((images, kernel)), stride, padding, forward)


def _faster_form(images: Array, kernel: Array, stride: int) -> Callable[..., Array]:
    """Return the fastest form on CPU without gradients."""
    size, _, in_channels, channels = kernel.shape
    if in_channels % 2 and channels in _SLOW_CHANNELS:
        return _with_one_channel_more
    is_multiplied = images.dtype == jnp.float32 or multiplies_bfloat16()
    if is_multiplied and in_channels >= _MANY_CHANNELS and size > stride > 1:
        return _as_product
    return _as_convolution


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
    images, kernel = residuals
    gradient = gradient.astype(images.dtype)
    of_images: Array
    (of_images,) = jax.vjp(lambda x: _as_convolution(x, kernel, stride, padding), images)[1](
        gradient
    )
    return of_images, _kernel_gradient(images, kernel, gradient, stride, padding)


_convolve.defvjp(_forward, _backward)


def _places(side: int, size: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - size) // stride + 1


def _kernel_gradient(
    images: Array, kernel: Array, gradient: Array, stride: int, padding: int
) -> Array:
    size, _, in_channels, _ = kernel.shape
    is_slow = size * in_channels >= _LEAST_COLUMNS and (stride == 1 or not has_wide_vectors())
    if is_slow and explicit_spec_of(kernel) is None:
        if stride == 1:
            return _all_taps(images, gradient, size, padding).astype(kernel.dtype)
        rows = [
            kernel_gradient(jnp.concatenate(row, axis=-1), gradient)
            for row in _pieces(images, size, stride, padding)
        ]
        return jnp.stack(rows).reshape(kernel.shape).astype(kernel.dtype)
    of_kernel: Array
    (of_kernel,) = jax.vjp(lambda k: _as_convolution(images, k, stride, padding), kernel)[1](
        gradient
    )
    return of_kernel


def _all_taps(images: Array, gradient: Array, size: int, padding: int) -> Array:
    """Return the gradient of a kernel that moves by one pixel, (size, size, in_channels, C)."""
    taps = range(size)
    by_column = [((padding, padding), (padding - tap, padding - size + 1 + tap)) for tap in taps]
    by_row = [((tap, size - 1 - tap), (0, 0)) for tap in taps]
    of_pairs = kernel_gradient(_side_by_side(images, by_column), _side_by_side(gradient, by_row))
    shape = (size, images.shape[-1], size, gradient.shape[-1])  # column, from, row, to
    return of_pairs.reshape(shape).transpose(2, 0, 1, 3)


def _side_by_side(maps: Array, edges: Sequence[tuple[_Pair, _Pair]]) -> Array:
    """Return a map padded, or cut, in several ways, their channels beside one another.

    Args:
      maps: (B, H, W, C).
      edges: for each way, zeros at top and bottom, left and right; negative ones cut.
    """
    zero = jnp.zeros((), maps.dtype)
    # Each way padded by itself: a loop over slices of one padded map takes XLA longer.
    ways = [
        lax.pad(maps, zero, ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
        for rows, columns in edges
    ]
    return jnp.concatenate(ways, axis=-1)


def _gather(images: Array, size: int, stride: int, padding: int) -> Array:
    """Return (B, H', W', size * size * in_channels): what each place sees."""
    return jnp.concatenate(sum(_pieces(images, size, stride, padding), []), axis=-1)


def _pieces(images: Array, size: int, stride: int, padding: int) -> list[list[Array]]:
    """Return what each tap of a kernel sees, (B, H', W', in_channels), by row and column.

    Args:
      images: (B, H, W, in_channels).
      size: of the kernel.
      stride: in pixels.
      padding: on every side, in pixels.
    """
    rows, columns = (_places(side, size, stride, padding) for side in images.shape[1:3])
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, edges)
    return [
        [
            padded[
                :,
                row : row + (rows - 1) * stride + 1 : stride,
                column : column + (columns - 1) * stride + 1 : stride,
            ]
            for column in range(size)
        ]
        for row in range(size)
    ]
