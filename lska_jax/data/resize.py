"""Resize an image and keep a window of the result, in memory that the window decides.

Pillow resizes whole images. An evaluation keeps the centre only, and of a strip that is a small
part: 1 x 20,000 pixels whose short side becomes 248 are 1.2 thousand million, 11.5 GiB. There the
window alone is computed here, with Pillow's arithmetic: the same coefficients, fixed-point
numbers and order of the passes, so the pixels are the same. Pillow enlarges horizontally first;
where it shrinks a side, the order depends on the sizes, so that is left to it.

Source: Pillow, src/libImaging/Resample.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Pillow resizes whole images up to this many times the pixels of the input and of the window; it
# is faster, since its loops are compiled.
_WHOLE_IMAGE_FACTOR = 4
# Fractional bits of a coefficient: 32, less 8 for the pixel and 2 for sums beyond the range.
_FRACTION_BITS = 32 - 8 - 2


class Window(NamedTuple):
    """The part of a resized image that is kept: rows and columns, each from start to stop."""

    rows: tuple[int, int]
    columns: tuple[int, int]


def resize_window(
    image: Image.Image, size: tuple[int, int], *, window: Window, resample: Image.Resampling
) -> UInt8[np.ndarray, "rows columns *channels"]:
    """Return a window of ``image.resize(size, resample)``, pixel for pixel.

    Args:
      image: of mode L or RGB.
      size: width and height of the whole resized image.
      window: what is kept of it.
      resample: bilinear or bicubic.
    """
    rows, columns = window
    kept = (rows[1] - rows[0]) * (columns[1] - columns[0])
    is_small = size[0] * size[1] <= _WHOLE_IMAGE_FACTOR * (image.width * image.height + kept)
    if is_small or size[0] < image.width or size[1] < image.height:
        whole = np.array(image if size == image.size else image.resize(size, resample))
        return np.ascontiguousarray(whole[slice(*rows), slice(*columns)])
    pixels = np.asarray(image)
    vertical = _coefficients(image.height, size[1], rows, resample)
    # The rows that the window needs, resized horizontally first as in Pillow.
    first, last = vertical.first[0], vertical.first[-1] + vertical.values.shape[1]
    pixels = _apply(pixels[first:last], _coefficients(image.width, size[0], columns, resample), 1)
    return _apply(pixels, vertical._replace(first=vertical.first - first), 0)


class _Coefficients(NamedTuple):
    """For each of n outputs the first input, and the weights of it and those that follow."""

    first: np.ndarray
    values: np.ndarray


def _coefficients(
    side: int, target: int, kept: tuple[int, int], resample: Image.Resampling
) -> _Coefficients:
    """Compute weights in fixed-point numbers, in the order of operations of Pillow."""
    filter_of, radius = _FILTERS[resample]
    scale = side / target
    stretch = max(scale, 1.0)
    support = radius * stretch
    centers = (np.arange(*kept) + 0.5) * scale
    first = np.maximum(np.trunc(centers - support + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centers + support + 0.5), side).astype(np.int64)
    inputs = first[:, None] + np.arange((last - first).max())
    weights = filter_of(np.abs((inputs - centers[:, None] + 0.5) * (1.0 / stretch)))
    weights[inputs >= last[:, None]] = 0.0
    # One after the other, as in Pillow: np.sum adds in another order.
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    scaled = weights * (1 << _FRACTION_BITS)
    return _Coefficients(first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32))


def _apply(pixels: np.ndarray, coefficients: _Coefficients, axis: int) -> np.ndarray:
    """Resize one axis; weights beyond the last input are zero."""
    pixels = np.moveaxis(pixels, axis, 0)
    total = np.full(
        (len(coefficients.first), *pixels.shape[1:]), 1 << (_FRACTION_BITS - 1), np.int32
    )
    for tap, weights in enumerate(coefficients.values.T):
        inputs = np.minimum(coefficients.first + tap, len(pixels) - 1)
        total += pixels[inputs] * weights.reshape(-1, *[1] * (pixels.ndim - 1))
    resized = np.clip(total >> _FRACTION_BITS, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(resized, 0, axis))


def _bilinear(distance: np.ndarray) -> np.ndarray:
    return np.where(distance < 1.0, 1.0 - distance, 0.0)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    x, a = distance, -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


_FILTERS: dict[Image.Resampling, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    Image.Resampling.BILINEAR: (_bilinear, 1.0),
    Image.Resampling.BICUBIC: (_bicubic, 2.0),
}
