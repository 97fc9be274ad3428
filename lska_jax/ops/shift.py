"""Depth-wise convolution as a sum of shifted slices, each times its tap.

XLA's CPU backend runs a grouped convolution far below memory speed; this form is one fused loop
over the map. The gradient of the weights is as many inner products of the map with its shifts.
"""

import functools
import math
import operator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from lska_jax.ops.formulations import Site
from lska_jax.ops.platform import target_platform
from lska_jax.ops.reduction import rows_a_sum, sum_over_pixels

# Of the weight gradient: taps that one loop over the map serves at most. With more, the loop has
# more arrays under way than the caches and registers of a core hold. Rows of a 2-D kernel share.
_TAPS_A_LOOP_1D, _TAPS_A_LOOP_2D = 7, 9
# That "auto" takes. Of 13 x 13, forward and backward together, banded matrices took half to two
# thirds of the time on CPU; 23 x 23 slices take XLA 23 s to compile.
MOST_SLICES = 128


class _Tap(NamedTuple):
    """One kernel position: its index in the kernel and its offset in the padded image."""

    row: int
    column: int
    row_start: int
    column_start: int


def convolve(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolve; arguments and result are those of ``depthwise_conv``."""
    taps, padding = _live_taps(images.shape, kernel.shape, dilation)
    padded = _pad(images, tuple(padding))
    weights = kernel.astype(jnp.float32)
    _, height, width, _ = images.shape
    terms = (_window(padded, tap, height, width) * weights[tap.row, tap.column, 0] for tap in taps)
    return functools.reduce(operator.add, terms).astype(images.dtype)


def weight_gradient(images: Array, kernel: Array, dilation: int, output_gradient: Array) -> Array:
    """Return the gradient of the kernel, float32 sums in the kernel's shape and dtype."""
    taps, padding = _live_taps(images.shape, kernel.shape, dilation)
    _, height, width, _ = images.shape
    # Whole blocks of rows for the sums: padding here, once, spares a copy of every product.
    extra = -height % rows_a_sum(height)
    gradient = jnp.pad(output_gradient, ((0, 0), (0, extra), (0, 0), (0, 0)))
    padding[1] = (padding[1][0], padding[1][1] + extra)
    padded = _pad(images, tuple(padding))
    most = _TAPS_A_LOOP_1D if 1 in kernel.shape[:2] else _TAPS_A_LOOP_2D
    loops = math.ceil(len(taps) / most)
    sums: list[Array] = []
    for number in range(loops):
        group = taps[number * len(taps) // loops : (number + 1) * len(taps) // loops]
        products = [
            _window(padded, tap, height + extra, width) * gradient.astype(jnp.float32)
            for tap in group
        ]
        sums += sum_over_pixels(products)
    # Live taps are a rectangle in the middle of the kernel; the gradient of the others is zero.
    dead_rows, dead_columns = taps[0].row, taps[0].column
    live = jnp.stack(sums).reshape(
        kernel.shape[0] - 2 * dead_rows, kernel.shape[1] - 2 * dead_columns, 1, -1
    )
    edges = ((dead_rows, dead_rows), (dead_columns, dead_columns), (0, 0), (0, 0))
    return jnp.pad(live, edges).astype(kernel.dtype)


def number_of_slices(site: Site) -> int:
    """Return how many slices are summed at a site: taps that reach into the map."""
    (height, width), (rows, columns) = site.map_size, site.kernel_size
    return len(_live_taps((1, height, width, 1), (rows, columns, 1, 1), site.dilation)[0])


def _pad(images: Array, padding: tuple[tuple[int, int], ...]) -> Array:
    """Pad with zeros; on CPU as integers of the same bits, which ``_window`` turns back.

    XLA's CPU backend would replace the one window that holds the whole image by the image, and
    compute that anew, with all convolutions before it, in every operation that reads the padded
    one. On TPU the integers would make it write every window out.
    """
    padded = jnp.pad(images, padding)
    if target_platform() != "cpu":
        return padded
    integers = jnp.int32 if images.dtype == jnp.float32 else jnp.int16
    return lax.bitcast_convert_type(padded, integers)


def _live_taps(
    images_shape: tuple[int, ...], kernel_shape: tuple[int, ...], dilation: int
) -> tuple[list[_Tap], list[tuple[int, int]]]:
    """Return the taps that reach into the image at all, and the padding they need.

    A kernel larger than the map has taps that only ever meet padding: they are left out.
    """
    _, height, width, _ = images_shape
    pad_rows, rows = _axis_taps(height, kernel_shape[0], dilation)
    pad_columns, columns = _axis_taps(width, kernel_shape[1], dilation)
    taps = [
        _Tap(row, column, row_start, column_start)
        for row, row_start in rows
        for column, column_start in columns
    ]
    return taps, [(0, 0), (pad_rows, pad_rows), (pad_columns, pad_columns), (0, 0)]


def _axis_taps(size: int, kernel_size: int, dilation: int) -> tuple[int, list[tuple[int, int]]]:
    half = (kernel_size - 1) // 2
    reach = min(half, (size - 1) // dilation)
    taps = [(half + step, dilation * (step + reach)) for step in range(-reach, reach + 1)]
    return dilation * reach, taps


def _window(padded: Array, tap: _Tap, height: int, width: int) -> Array:
    window = padded[
        :, tap.row_start : tap.row_start + height, tap.column_start : tap.column_start + width, :
    ]
    if jnp.issubdtype(window.dtype, jnp.integer):
        floats = jnp.float32 if window.dtype == jnp.int32 else jnp.bfloat16
        window = lax.bitcast_convert_type(window, floats)
    return window.astype(jnp.float32)
