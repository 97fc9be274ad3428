"""Resize as the dense recipes do: OpenCV's bilinear and nearest, which do not antialias.

``augment`` and ``resize`` follow Pillow, whose filters widen where an image shrinks; detectors and
segmentors of the reference were trained on pixels that OpenCV interpolates between the four nearest
(two by two), at half-pixel centres, in whole numbers of 2^-11. The arithmetic here is the same.

Source: OpenCV 4, modules/imgproc/src/resize.cpp.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

# Fractional bits of a weight.
_BITS = 11
_ONE = 1 << _BITS


class _Taps(NamedTuple):
    """For each of n outputs two inputs, and the weight of the second, (n,) int32 in 0..2048."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


def fit_size(height: int, width: int, *, long_side: int, short_side: int) -> tuple[int, int]:
    """Return the largest size of an image's proportions within two bounds, as (height, width).

    Sides are rounded half up. Recipes write the bounds as "(1333, 800)".

    Args:
      height: of the image, in pixels.
      width: of the image, in pixels.
      long_side: the most pixels of the longer side.
      short_side: the most pixels of the shorter side.
    """
    factor = min(long_side / max(height, width), short_side / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def resize_bilinear(
    pixels: UInt8[np.ndarray, "height width 3"],
    size: tuple[int, int],
    *,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return a resized image, or a window of it at the cost of the window.

    Args:
      pixels: the image.
      size: height and width of the whole resized image.
      rows: the window's rows in the resized image, each step 1.
      columns: the window's columns.
    """
    if size == pixels.shape[:2]:
        return np.ascontiguousarray(pixels[rows, columns])
    down = _taps(pixels.shape[0], size[0], rows)
    across = _taps(pixels.shape[1], size[1], columns)
    # Only the rows that are needed are resized across, once each.
    needed, place = np.unique(np.concatenate([down.first, down.second]), return_inverse=True)
    wide = pixels[needed]
    # Beyond an edge both taps are its pixel, and their weights add up without rounding here; below
    # they are rounded down one by one, as in OpenCV.
    weight = across.weight[:, None]
    lines = wide[:, across.first] * (_ONE - weight) + wide[:, across.second] * weight
    lines >>= 4
    above, below = (lines[part] for part in np.split(place, 2))
    weight = down.weight[:, None, None]
    above *= _ONE - weight
    above >>= 16
    below *= weight
    below >>= 16
    above += below
    above += 2
    above >>= 2
    return above.astype(np.uint8)


def resize_nearest(
    maps: Shaped[np.ndarray, "*maps height width"],
    size: tuple[int, int],
    *,
    rows: slice = slice(None),
    columns: slice = slice(None),
) -> Shaped[np.ndarray, "*maps rows columns"]:
    """Return resized masks or label maps, or a window of them; arguments as above."""
    if size == maps.shape[-2:]:
        return np.ascontiguousarray(maps[..., rows, columns])
    down = _nearest(maps.shape[-2], size[0])[rows]
    across = _nearest(maps.shape[-1], size[1])[columns]
    return maps[..., down[:, None], across]


def _taps(side: int, target: int, kept: slice) -> _Taps:
    scale = 1.0 / (target / side)
    centers = ((np.arange(target)[kept] + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(centers).astype(np.int64)
    weight = np.rint((centers - first.astype(np.float32)) * np.float32(_ONE)).astype(np.int32)
    first, second = (np.clip(inputs, 0, side - 1) for inputs in (first, first + 1))
    return _Taps(first, second, weight)


def _nearest(side: int, target: int) -> np.ndarray:
    scale = 1.0 / (target / side)
    return np.minimum(np.floor(np.arange(target) * scale).astype(np.int64), side - 1)
