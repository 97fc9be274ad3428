"""Strided convolution of all channels: stems and overlapping patch embeddings.

``lax.conv_general_dilated``, but on CPU one product of gathered patches where that was measured to
be faster (docs/performance/notes.md):

- of images of a few channels, seven taps at stride 4. The pixels from one window to the next lie
  side by side, so that a row of a window is a run of numbers, cut in two at its stride.
- of bfloat16 where the processor multiplies it: XLA's convolution widens both sides.

Gradients are those of ``lax``, which are faster than those of the product.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.images_in_turn import in_turn
from lska_jax.ops.platform import target_platform, vary_alike
from lska_jax.ops.pointwise import pointwise_conv
from lska_jax.ops.processor import multiplies_bfloat16
from lska_jax.ops.reverse_mode import reverse_mode_only

_FEW_CHANNELS, _STRIDE_OF_FEW = 4, 4
# Of bfloat16. Of 32 channels the gathering takes what the product gains.
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
    run = _pixels_a_run(images, kernel, stride)
    if run is None:
        return _as_convolution(images, kernel, stride, padding)
    return _convolve(*vary_alike((images, kernel)), stride, padding, run)


def _pixels_a_run(images: Array, kernel: Array, stride: int) -> int | None:
    """Return how many pixels of a window's row are gathered as one, None for no product."""
    size, channels = kernel.shape[0], images.shape[-1]
    is_fixed = isinstance(images.shape[0], int)  # an export's symbolic batch is left to lax
    if target_platform() != "cpu" or not is_fixed or 0 in images.shape or not size > stride > 1:
        return None
    if channels <= _FEW_CHANNELS:
        return stride if stride >= _STRIDE_OF_FEW else None
    is_narrow = images.dtype == jnp.bfloat16 and multiplies_bfloat16()
    return 1 if is_narrow and channels >= _MANY_CHANNELS else None


def _as_convolution(images: Array, kernel: Array, stride: int, padding: int) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(images: Array, kernel: Array, stride: int, padding: int, run: int) -> Array:
    """Return the convolution as a product of patches, gathered in runs of some pixels each."""
    size, _, in_channels, channels = kernel.shape
    rows, columns = (_places(side, size, stride, padding) for side in images.shape[1:3])
    matrix = kernel.reshape(-1, channels)

    def convolve(images: Array) -> Array:
        # Few channels are gathered faster in float32, which holds the same numbers.
        images = images.astype(jnp.float32) if in_channels <= _FEW_CHANNELS else images
        patches = _gather(images, size, stride, padding, run=run)
        return pointwise_conv(patches, matrix, dtype=jnp.float32)

    return in_turn(convolve, images, bytes_an_image=4 * rows * columns * matrix.shape[0])


def _forward(
    images: Array, kernel: Array, stride: int, padding: int, run: int
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(images, kernel, stride, padding, run), (images, kernel)


def _backward(
    stride: int, padding: int, run: int, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    def convolve(images: Array, kernel: Array) -> Array:
        return _as_convolution(images, kernel, stride, padding)

    of_images: Array
    of_images, of_kernel = jax.vjp(convolve, *residuals)[1](gradient.astype(residuals[0].dtype))
    return of_images, of_kernel


_convolve.defvjp(_forward, _backward)


def _places(side: int, size: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - size) // stride + 1


def _gather(images: Array, size: int, stride: int, padding: int, *, run: int) -> Array:
    """Return (B, H', W', size * size * in_channels): what each place sees, in the kernel's order.

    Args:
      images: (B, H, W, in_channels).
      size: of the kernel.
      stride: in pixels.
      padding: on every side, in pixels.
      run: pixels that are gathered as one, 1 or the stride.
    """
    batch, height, width, channels = images.shape
    rows, columns = (_places(side, size, stride, padding) for side in (height, width))
    # Whole runs behind the last window too.
    after = (columns - 1) * stride + -(-size // run) * run - width - padding
    edges = ((0, 0, 0), (padding, padding, 0), (padding, after, 0), (0, 0, 0))
    padded = lax.pad(images, jnp.zeros((), images.dtype), edges)
    runs = padded.reshape(batch, padded.shape[1], -1, run * channels)
    pieces = []
    for row, first in itertools.product(range(size), range(0, size, run)):
        below = slice(row, row + (rows - 1) * stride + 1, stride)
        step = stride // run
        beside = slice(first // run, first // run + (columns - 1) * step + 1, step)
        pieces.append(runs[:, below, beside, : min(run, size - first) * channels])
    return jnp.concatenate(pieces, axis=-1)
