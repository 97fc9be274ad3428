"""Linear filters of fixed size as one matrix an axis, and pixel shifts.

A separable filter (Gaussian blur, box averages, bilinear or box resizing) together with what it
does at the borders is a matrix R over rows and a matrix C over columns: out = R x C^T for each
channel. The matrices are built with NumPy in float64 while tracing, so a compiled program holds
them as constants, and two matrix products are what accelerators and CPUs do best.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

REFERENCE_SIZE = 224
"""Side in pixels of the images that the constants of ImageNet-C are made for."""

# Float32 leaves what is a whole grey level in exact arithmetic a hair below it; truncation must
# not turn that into the level below.
_ROUNDING_SLACK = 1e-3

_EXACT = jax.lax.Precision.HIGHEST
_BAND = 56
_WORTH_A_SPLIT = 0.7


def size_ratio(height: int, width: int) -> float:
    """Return the shorter side over 224: what the benchmark's lengths are multiplied by."""
    return min(height, width) / REFERENCE_SIZE


def truncate_levels(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return floor(255 x) for x in [0, 1] as float32 whole numbers: the cast to uint8."""
    return jnp.floor(jnp.clip(images, 0.0, 1.0) * 255.0 + _ROUNDING_SLACK)


def gaussian_weights(sigma: float, *, truncate: float) -> np.ndarray:
    """Return (2 r + 1,) float64 Gaussian weights that sum to one, r = round(truncate sigma)."""
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / max(sigma, 1e-6)) ** 2)
    return weights / weights.sum()


def smoothed_spread(sigma: float, *, truncate: float) -> float:
    """Return the standard deviation of unit white noise after a 2-D Gaussian blur.

    It is the sum of the squared 1-D weights. Noise fields use it to keep their spread when sigma
    is scaled to the size of the image.
    """
    return float(np.sum(gaussian_weights(sigma, truncate=truncate) ** 2))


def folded(index: np.ndarray, size: int, *, border: str) -> np.ndarray:
    """Return where an index outside 0..size-1 is read from.

    Args:
      index: integers.
      size: length of the axis.
      border: "nearest" (a a | a b c | c c), "reflect" (b a | a b c | c b) or
        "mirror" (c b | a b c | b a; OpenCV's BORDER_REFLECT_101).
    """
    if border == "nearest" or size == 1:
        return np.clip(index, 0, size - 1)
    if border == "reflect":
        within = np.mod(index, 2 * size)
        return np.where(within < size, within, 2 * size - 1 - within)
    within = np.mod(index, 2 * size - 2)
    return np.where(within < size, within, 2 * size - 2 - within)


def filter_matrix(weights: np.ndarray, size: int, *, border: str) -> np.ndarray:
    """Return the (size, size) matrix that correlates an axis with odd, centred weights."""
    radius = len(weights) // 2
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(range(-radius, radius + 1), weights, strict=True):
        np.add.at(matrix, (rows, folded(rows + offset, size, border=border)), weight)
    return matrix


def zoom_centre(size: int, factor: float) -> tuple[int, int]:
    """Return the first pixel and the number of pixels of an axis that a zoom enlarges."""
    centre = math.ceil(size / factor)
    return (size - centre) // 2, centre


class ZoomTaps(NamedTuple):
    """What each pixel of a zoomed axis is made of: two neighbours and the weight of the second."""

    first: np.ndarray
    second: np.ndarray
    fraction: np.ndarray


def zoom_taps(size: int, factor: float) -> ZoomTaps:
    """Return the taps of the benchmark's clipped zoom of one axis, three (size,) arrays.

    The centre ceil(size / factor) pixels are enlarged to n = round(centre * factor) by linear
    interpolation with the end points aligned (``scipy.ndimage.zoom``, order 1), of which the centre
    ``size`` are kept. Rounding can leave n one short of ``size``: the last pixel then repeats.
    """
    start, centre = zoom_centre(size, factor)
    enlarged = max(round(centre * factor), 1)
    trim = max(enlarged - size, 0) // 2
    kept = np.minimum(np.arange(size) + trim, enlarged - 1)
    positions = kept * ((centre - 1) / (enlarged - 1)) if enlarged > 1 else np.zeros(size)
    lower = np.minimum(np.floor(positions).astype(int), max(centre - 2, 0))
    second = start + np.minimum(lower + 1, centre - 1)
    return ZoomTaps(start + lower, second, positions - lower)


def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Return the (size, size) matrix of the benchmark's clipped zoom of one axis."""
    taps = zoom_taps(size, factor)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    np.add.at(matrix, (rows, taps.first), 1 - taps.fraction)
    np.add.at(matrix, (rows, taps.second), taps.fraction)
    return matrix


def box_matrix(size: int, new_size: int) -> np.ndarray:
    """Return the (new_size, size) matrix of Pillow's BOX resizing of one axis.

    Every output is the plain mean of the input pixels whose centres lie in (c - s/2, c + s/2],
    where c is its own centre and s = max(size / new_size, 1) in input pixels.
    """
    ratio = size / new_size
    width = max(ratio, 1.0)
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        centre = (row + 0.5) * ratio
        first = max(int(centre - width / 2 + 0.5), 0)
        last = min(int(centre + width / 2 + 0.5), size)
        offsets = (np.arange(first, last) + 0.5 - centre) / width
        inside = (offsets > -0.5) & (offsets <= 0.5)
        matrix[row, first:last] = inside / inside.sum()
    return matrix


def to_rows(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "height planes width"]:
    """Return images as (H, B C, W): products along both axes then need no transposition."""
    batch, height, width, channels = images.shape
    return images.transpose(1, 0, 3, 2).reshape(height, batch * channels, width)


def from_rows(
    rows: Float[Array, "height planes width"], *, channels: int
) -> Float[Array, "batch height width channels"]:
    """Undo ``to_rows``."""
    height, planes, width = rows.shape
    return rows.reshape(height, planes // channels, channels, width).transpose(1, 0, 3, 2)


def filter_height(
    rows: Float[Array, "height planes width"],
    matrix: np.ndarray | Float[Array, "new_height height"],
    *,
    pattern: np.ndarray | None = None,
) -> Float[Array, "new_height planes width"]:
    """Return matrix (H', H) times every column of images from ``to_rows``.

    Args:
      rows: from ``to_rows``.
      matrix: of NumPy, or of the program.
      pattern: (H', H), where it may differ from 0; None where it is of NumPy.
    """
    parts = []
    for first, last, start, stop in _bands(np.asarray(matrix) if pattern is None else pattern):
        weights = jnp.asarray(matrix[first:last, start:stop], jnp.float32)
        part = rows[start:stop]
        parts.append(jnp.einsum("oh,hpw->opw", weights, part, precision=_EXACT))
    return jnp.concatenate(parts, axis=0)


def filter_width(
    rows: Float[Array, "height planes width"],
    matrix: np.ndarray | Float[Array, "new_width width"],
    *,
    pattern: np.ndarray | None = None,
) -> Float[Array, "height planes new_width"]:
    """Return matrix (W', W) times every row of images from ``to_rows``; see ``filter_height``."""
    parts = []
    for first, last, start, stop in _bands(np.asarray(matrix) if pattern is None else pattern):
        weights = jnp.asarray(matrix[first:last, start:stop], jnp.float32)
        part = rows[:, :, start:stop]
        parts.append(jnp.einsum("ow,hpw->hpo", weights, part, precision=_EXACT))
    return jnp.concatenate(parts, axis=2)


def _bands(matrix: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return blocks (first and last output, first and last input) that hold all that is not 0.

    A filter reads its neighbourhood only: in blocks of 56 outputs most of the matrix is left out.
    """
    bands = []
    for first in range(0, matrix.shape[0], _BAND):
        last = min(first + _BAND, matrix.shape[0])
        used = np.flatnonzero(matrix[first:last].any(axis=0))
        bands.append((first, last, int(used[0]), int(used[-1]) + 1))
    narrow = sum((last - first) * (stop - start) for first, last, start, stop in bands)
    if narrow > _WORTH_A_SPLIT * matrix.size:
        return [(0, matrix.shape[0], 0, matrix.shape[1])]
    return bands


def gaussian_filter(
    images: Float[Array, "batch height width channels"],
    *,
    sigma: float,
    border: str = "nearest",
    truncate: float = 4.0,
) -> Float[Array, "batch height width channels"]:
    """Blur with a Gaussian of ``sigma`` pixels that is cut off at ``truncate`` sigma.

    The defaults are those of ``skimage.filters.gaussian``.
    """
    weights = gaussian_weights(sigma, truncate=truncate)
    _, height, width, channels = images.shape
    rows = filter_width(to_rows(images), filter_matrix(weights, width, border=border))
    rows = filter_height(rows, filter_matrix(weights, height, border=border))
    return from_rows(rows, channels=channels)


def box_filter(
    images: Float[Array, "batch height width"],
) -> Float[Array, "batch height width"]:
    """Return the mean of each 3 x 3 neighbourhood, borders mirrored (OpenCV's ``blur``)."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9.0


def shifted(
    images: Float[Array, "batch height width"], down: int, right: int, *, fill: float
) -> Float[Array, "batch height width"]:
    """Return images moved by whole pixels; what enters from outside is ``fill``."""
    _, height, width = images.shape
    padded = jnp.pad(
        images,
        ((0, 0), (max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))),
        constant_values=fill,
    )
    top, left = max(-down, 0), max(-right, 0)
    return padded[:, top : top + height, left : left + width]
