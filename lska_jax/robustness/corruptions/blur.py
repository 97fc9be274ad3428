"""Gaussian, defocus and zoom blur (Hendrycks & Dietterich, arXiv 1903.12261).

Sigmas and radii are for 224 px and are multiplied by the shorter side over 224; zoom factors are
relative and fit any size.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lska_jax.robustness.corruptions.filters import (
    ZoomTaps,
    filter_height,
    filter_matrix,
    filter_width,
    folded,
    from_rows,
    gaussian_filter,
    size_ratio,
    to_rows,
    zoom_matrix,
    zoom_taps,
)
from lska_jax.robustness.corruptions.severities import Severity, at

# Sigma in pixels; (radius of the disk, sigma of its smoothing) in pixels; (last zoom factor,
# step) of factors that start at 1, the last one excluded. Severities 1 to 5.
GAUSSIAN_SIGMAS = (1.0, 2.0, 3.0, 4.0, 6.0)
DEFOCUS_DISKS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
ZOOM_RANGES = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))

# Up to this radius the disk lies in an array of 17 x 17 and is smoothed by 3 taps, above it by 5.
_LARGEST_SMALL_DISK = 8
_DISK_SUBSAMPLES = 16


def gaussian_blur(
    images: Float[Array, "batch height width 3"], *, sigma: float
) -> Float[Array, "batch height width 3"]:
    """Blur with a Gaussian of ``sigma`` pixels at 224 px, the border pixels repeated."""
    _, height, width, _ = images.shape
    return gaussian_filter(images, sigma=sigma * size_ratio(height, width))


def defocus_blur(
    images: Float[Array, "batch height width 3"], *, radius: int, smoothing: float
) -> Float[Array, "batch height width 3"]:
    """Correlate with a disk of ``radius`` pixels at 224 px, its edge smoothed; borders mirrored.

    At 224 px the disk is the benchmark's: pixels whose centres lie within the radius, smoothed by
    a Gaussian of 3 taps (5 above radius 8), the disk's array mirrored at its borders (so disks that
    fill it get a little brighter than 1). At other sizes the scaled radius is no whole number, so
    each pixel's weight is the share of its area inside the disk.
    """
    _, height, width, _ = images.shape
    ratio = size_ratio(height, width)
    kernel = disk(radius, smoothing) if ratio == 1.0 else covered_disk(radius * ratio)
    return jnp.clip(_correlated(images, kernel), 0.0, 1.0)


def disk(radius: int, smoothing: float) -> np.ndarray:
    """Return the benchmark's (n, n) disk kernel: n = 17 up to radius 8, else 2 radius + 1."""
    is_small = radius <= _LARGEST_SMALL_DISK
    reach, taps = (_LARGEST_SMALL_DISK, 3) if is_small else (radius, 5)
    offsets = np.arange(-reach, reach + 1)
    inside = offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2
    smooth = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / smoothing) ** 2)
    matrix = filter_matrix(smooth / smooth.sum(), len(offsets), border="mirror")
    return matrix @ (inside / inside.sum()) @ matrix.T


def zoom_blur(
    images: Float[Array, "batch height width 3"], *, severity: Severity
) -> Float[Array, "batch height width 3"]:
    """Return the mean of the image and its zooms by 1, 1 + step, ... below the last.

    The zoom by 1 is the image itself, which therefore counts twice, as in the benchmark.
    """
    _, height, width, _ = images.shape
    factors = [np.arange(1, last, step) for last, step in ZOOM_RANGES]
    count = at(severity, [len(each) for each in factors])
    across = _zooms(width, factors)
    down = across if height == width else _zooms(height, factors)
    rows = to_rows(images)

    def add(number: Array, total: Float[Array, "..."]) -> Float[Array, "..."]:
        narrow = filter_width(rows, across.matrix(severity, number), pattern=across.pattern)
        zoomed = filter_height(narrow, down.matrix(severity, number), pattern=down.pattern)
        return total + zoomed

    total = jax.lax.fori_loop(0, count, add, rows)
    return from_rows(total / (count + 1).astype(jnp.float32), channels=3)


class _Zooms(NamedTuple):
    """The zooms of one axis at every severity, short enough to stand in a program.

    Attributes:
      taps: three (5, zooms, size) arrays; a severity with fewer zooms leaves the last ones unused.
      pattern: (size, size), where any of their matrices differs from 0.
    """

    taps: ZoomTaps
    pattern: np.ndarray

    def matrix(self, severity: Severity, number: Array) -> Float[Array, "size size"]:
        """Return the matrix of one zoom."""
        first, second, fraction = (at(severity, table)[number][:, None] for table in self.taps)
        # 1 - x in float64 as in a matrix of NumPy.
        rest = at(severity, 1 - self.taps.fraction)[number][:, None]
        column = jnp.arange(self.pattern.shape[1])[None, :]
        zero = jnp.zeros((), jnp.float32)
        at_first = jnp.where(column == first, rest, zero)
        return at_first + jnp.where(column == second, fraction, zero)


def _zooms(size: int, factors: list[np.ndarray]) -> _Zooms:
    most = max(len(each) for each in factors)
    filled = [np.append(each, [1.0] * (most - len(each))) for each in factors]
    taps = [[zoom_taps(size, factor) for factor in each] for each in filled]
    pattern = np.any([zoom_matrix(size, factor) != 0 for factor in np.concatenate(factors)], axis=0)
    tables = (
        np.asarray([[getattr(t, n) for t in each] for each in taps]) for n in ZoomTaps._fields
    )
    return _Zooms(ZoomTaps(*tables), pattern)


def covered_disk(radius: float) -> np.ndarray:
    """Return (n, n) weights: the share of every pixel's area in the disk, summing to one."""
    reach = math.ceil(radius + 0.5)
    count = (2 * reach + 1) * _DISK_SUBSAMPLES
    points = (np.arange(count) + 0.5) / _DISK_SUBSAMPLES - reach - 0.5
    inside = points[:, None] ** 2 + points[None, :] ** 2 <= radius**2
    blocks = inside.reshape(2 * reach + 1, _DISK_SUBSAMPLES, 2 * reach + 1, _DISK_SUBSAMPLES)
    shares = blocks.mean(axis=(1, 3))
    return shares / shares.sum()


def _correlated(
    images: Float[Array, "batch height width 3"], kernel: np.ndarray
) -> Float[Array, "batch height width 3"]:
    """Correlate with a symmetric (n, n) kernel, borders mirrored, by the Fourier transform."""
    batch, height, width, channels = images.shape
    pad = len(kernel) // 2
    planes = images.transpose(0, 3, 1, 2)
    rows = folded(np.arange(-pad, height + pad), height, border="mirror")
    columns = folded(np.arange(-pad, width + pad), width, border="mirror")
    padded = planes[:, :, rows][:, :, :, columns]
    # Wrapping around touches only the border, which is cut off; sizes that factor well are fast.
    shape = tuple(_fast_size(length) for length in padded.shape[2:])
    transform = jnp.asarray(np.fft.rfft2(kernel, shape), jnp.complex64)
    result = jnp.fft.irfft2(jnp.fft.rfft2(padded, shape) * transform, shape)
    inner = result[:, :, 2 * pad : 2 * pad + height, 2 * pad : 2 * pad + width]
    return inner.transpose(0, 2, 3, 1)


def _fast_size(length: int) -> int:
    """Return the smallest product of 2s, 3s and 5s that is not below ``length``."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
