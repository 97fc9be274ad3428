"""Depth-wise convolution as a sum of shifted slices, each times its tap.

XLA's CPU backend runs a grouped convolution far below memory speed; this form is one fused loop
over the map. The gradient of the weights is one inner product for each tap.
"""

import functools
import math
import operator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from lska_jax.ops.broadcast import along_channels
from lska_jax.ops.formulations import Site
from lska_jax.ops.platform import target_platform, vary_alike
from lska_jax.ops.reduction import rows_a_sum, sum_over_pixels

# Of the weight gradient: taps that one loop over the map serves at most. With more, the loop has
# more arrays under way than the caches and registers of a core hold. Rows of a 2-D kernel share.
_TAPS_A_LOOP_1D, _TAPS_A_LOOP_2D = 7, 9
# That "auto" takes as one sum. Of 13 x 13 in one loop XLA makes slow code for CPU, 30 times as slow
# as of 11 x 11 at 28 x 28; 23 x 23 slices take XLA 23 s to compile.
_MOST_SLICES = 128
# On CPU 13 x 13, the most that was measured, is summed piece by piece, in a fifth to half of the
# time of banded matrices; for the gradient of the kernel those stay faster.
_MOST_SLICES_IN_PIECES = 13 * 13
_SLICES_A_PIECE = 64


class _Tap(NamedTuple):
    """One kernel position: its index in the kernel and its offset in the padded image."""

    row: int
    column: int
    row_start: int
    column_start: int


def convolve(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolve; arguments and result are those of ``depthwise_conv``."""
    taps, padding = _live_taps(images.shape, kernel.shape, dilation)
    if len(taps) <= _MOST_SLICES or target_platform() != "cpu":
        windows = _windows(images, taps, padding)
        return _add_products(windows, taps, kernel).astype(images.dtype)
    count = math.ceil(len(taps) / _SLICES_A_PIECE)

    def add_piece(number: int, total: Array) -> Array:
        piece = slice(number * len(taps) // count, (number + 1) * len(taps) // count)
        windows = _windows(images, taps[piece], padding)
        return _add_products(windows, taps[piece], kernel, total)

    # A loop whose every round is another branch: XLA would merge anything less into one loop again.
    pieces = [functools.partial(add_piece, number) for number in range(count)]
    total, _ = vary_alike((jnp.zeros(images.shape, jnp.float32), images))
    total = lax.fori_loop(0, count, lambda n, total: lax.switch(n, pieces, total), total)
    return total.astype(images.dtype)


def convolve_padded(padded: Array, kernel: Array) -> Array:
    """Convolve a map that has the zeros around it already.

    Args:
      padded: (B, H + kh - 1, W + kw - 1, C).
      kernel: (kh, kw, 1, C), undilated; of a map that every tap reaches into.

    Returns:
      (B, H, W, C) in the dtype of ``padded``.
    """
    batch, height, width, channels = padded.shape
    shape = (batch, height - kernel.shape[0] + 1, width - kernel.shape[1] + 1, channels)
    taps, _ = _live_taps(shape, kernel.shape, 1)
    return _add_products(_cut(padded, taps, shape[1:3]), taps, kernel).astype(padded.dtype)


def weight_gradient(images: Array, kernel: Array, dilation: int, output_gradient: Array) -> Array:
    """Return the gradient of the kernel, float32 sums in the kernel's shape and dtype."""
    taps, padding = _live_taps(images.shape, kernel.shape, dilation)
    # Whole blocks of rows for CPU's sums: padding here, once, spares a copy of every product.
    is_cpu = target_platform() == "cpu"
    extra = -images.shape[1] % rows_a_sum(images.shape[1]) if is_cpu else 0
    gradient = jnp.pad(output_gradient, ((0, 0), (0, extra), (0, 0), (0, 0)))
    windows = _windows(images, taps, padding, extra)
    most = _TAPS_A_LOOP_1D if 1 in kernel.shape[:2] else _TAPS_A_LOOP_2D
    loops = math.ceil(len(taps) / most)
    sums: list[Array] = []
    for number in range(loops):
        group = slice(number * len(taps) // loops, (number + 1) * len(taps) // loops)
        sums += sum_over_pixels(
            [window * gradient.astype(jnp.float32) for window in windows[group]]
        )
    # Live taps are a rectangle in the middle of the kernel; the gradient of the others is zero.
    dead_rows, dead_columns = taps[0].row, taps[0].column
    live = jnp.stack(sums).reshape(
        kernel.shape[0] - 2 * dead_rows, kernel.shape[1] - 2 * dead_columns, 1, -1
    )
    edges = ((dead_rows, dead_rows), (dead_columns, dead_columns), (0, 0), (0, 0))
    return jnp.pad(live, edges).astype(kernel.dtype)


def has_too_many_slices(site: Site, part: str) -> bool:
    """Tell whether "auto" leaves a part of a convolution to banded matrices in place of slices.

    Args:
      site: the convolution.
      part: "forward", "input_gradient" or "weight_gradient".
    """
    is_in_pieces = target_platform() == "cpu" and part != "weight_gradient"
    most = _MOST_SLICES_IN_PIECES if is_in_pieces else _MOST_SLICES
    return _number_of_slices(site) > most


def _number_of_slices(site: Site) -> int:
    """Return how many slices are summed at a site: taps that reach into the map."""
    (height, width), (rows, columns) = site.map_size, site.kernel_size
    return len(_live_taps((1, height, width, 1), (rows, columns, 1, 1), site.dilation)[0])


def _add_products(
    windows: list[Array], taps: list[_Tap], kernel: Array, total: Array | None = None
) -> Array:
    """Return the sum of all windows, each times its tap, in float32."""
    weights = kernel.astype(jnp.float32)
    products = [
        window * along_channels(weights[tap.row, tap.column, 0], window)
        for tap, window in zip(taps, windows, strict=True)
    ]
    return functools.reduce(operator.add, products if total is None else [total, *products])


def _windows(
    images: Array, taps: list[_Tap], padding: list[tuple[int, int]], extra: int = 0
) -> list[Array]:
    """Return what each tap meets, (B, H + extra, W, C) float32, zero outside the images.

    XLA's CPU and TPU backends read all windows from one padded map. On CPU it is padded as integers
    of the same bits: XLA would replace the one window that holds the whole image by the image, and
    compute that anew, with all convolutions before it, in every operation that reads the padded
    one. On TPU the integers would make it write every window out. On GPU a window is a padding of
    its own, cut off at the other end, which XLA computes in the loop that sums them, so that no
    padded map is written.
    """
    _, height, width, _ = images.shape
    (above, _), (before, _) = padding[1:3]
    platform = target_platform()
    if platform == "cpu":
        # XLA pads in float32 there, and of bfloat16 rounds every window of it once more.
        images = images.astype(jnp.float32)
    if platform == "gpu":
        moves = [(above - tap.row_start, before - tap.column_start) for tap in taps]
        zero = jnp.zeros((), images.dtype)
        edges = [((0, 0, 0), (y, extra - y, 0), (x, -x, 0), (0, 0, 0)) for y, x in moves]
        return [lax.pad(images, zero, edge).astype(jnp.float32) for edge in edges]
    sides = ((0, 0), (above, above + extra), (before, before), (0, 0))
    return _cut(jnp.pad(images, sides), taps, (height + extra, width))


def _cut(padded: Array, taps: list[_Tap], size: tuple[int, int]) -> list[Array]:
    """Return the windows of a padded map, each of a size in rows and columns."""
    is_cpu = target_platform() == "cpu"
    if is_cpu:
        padded = lax.bitcast_convert_type(padded, jnp.int32)
    windows = []
    for tap in taps:
        rows = slice(tap.row_start, tap.row_start + size[0])
        columns = slice(tap.column_start, tap.column_start + size[1])
        window = padded[:, rows, columns, :]
        if is_cpu:
            window = lax.bitcast_convert_type(window, jnp.float32)
        windows.append(window.astype(jnp.float32))
    return windows


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
