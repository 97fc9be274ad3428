"""JPEG compression and decompression as arithmetic (arXiv 1903.12261; ITU-T T.81 and T.871).

What a baseline JPEG does to an image without the entropy coding, which loses nothing: colours to
luma and chroma, chroma at half the size, cosine transform of 8 x 8 blocks, quantisation, and back.
Conversions, subsampling and rounding follow libjpeg, in whole numbers; the transforms are float32
matrix products where libjpeg has fixed-point ones, so a coefficient that lies on the boundary of
two steps can fall the other way. It runs inside any compiled program, without a call to the host.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lska_jax.robustness.corruptions.severities import Severity, at, written_out

# Quality at severities 1 to 5. The blocks are 8 x 8 pixels at every size.
JPEG_QUALITIES = (25, 18, 15, 10, 7)

# Tables K.1 and K.2 of ITU-T T.81.
_LUMA_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
_FRACTION_BITS = 16
_HALF = 1 << (_FRACTION_BITS - 1)


def jpeg_compression(
    images: Float[Array, "batch height width 3"], *, severity: Severity
) -> Float[Array, "batch height width 3"]:
    """Compress with chroma at half the size and decompress; in whole grey levels."""
    _, height, width, _ = images.shape
    levels = jnp.floor(images * 255.0 + 0.5).astype(jnp.int32).transpose(0, 3, 1, 2)
    colours = written_out(severity, _padded(levels, 16))
    luma, *chromas = written_out(severity, _to_luma_and_chroma(colours))
    luma_steps, chroma_steps = (
        at(severity, [_steps(table, quality) for quality in JPEG_QUALITIES]).astype(jnp.float32)
        for table in (_LUMA_STEPS, _CHROMA_STEPS)
    )
    half = math.ceil(height / 2), math.ceil(width / 2)
    small = [_through_quantiser(_halved(c), chroma_steps) for c in chromas]
    luma, small = written_out(severity, (_through_quantiser(luma, luma_steps), small))
    luma = luma[:, :height, :width]
    doubled = [_doubled(c[:, : half[0], : half[1]])[:, :height, :width] for c in small]
    blue, red = written_out(severity, doubled)
    return _to_rgb(luma, blue, red).transpose(0, 2, 3, 1).astype(jnp.float32) / 255.0


def _steps(table: tuple[tuple[int, ...], ...], quality: int) -> np.ndarray:
    """Return the (8, 8) quantiser steps at a quality: 50 is the table itself."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.asarray(table) * percent + 50) // 100, 1, 255)


def _padded(
    levels: Int[Array, "batch 3 height width"], multiple: int
) -> Int[Array, "batch 3 padded_height padded_width"]:
    _, _, height, width = levels.shape
    pads = ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple))
    return jnp.pad(levels, pads, mode="edge")


def _fixed(number: float) -> int:
    return int(number * (1 << _FRACTION_BITS) + 0.5)


def _to_luma_and_chroma(
    levels: Int[Array, "batch 3 height width"],
) -> list[Int[Array, "batch height width"]]:
    """Return Y, Cb and Cr in 0..255, the chromas around 128."""
    red, green, blue = (levels[:, i] for i in range(3))
    luma = _fixed(0.299) * red + _fixed(0.587) * green + _fixed(0.114) * blue + _HALF
    # One below a half, so that the largest chroma does not round up to 256.
    middle = (128 << _FRACTION_BITS) + _HALF - 1
    to_blue = middle - _fixed(0.168735892) * red - _fixed(0.331264108) * green + _HALF * blue
    to_red = middle + _HALF * red - _fixed(0.418687589) * green - _fixed(0.081312411) * blue
    return [plane >> _FRACTION_BITS for plane in (luma, to_blue, to_red)]


def _to_rgb(
    luma: Int[Array, "batch height width"],
    blue: Int[Array, "batch height width"],
    red: Int[Array, "batch height width"],
) -> Int[Array, "batch 3 height width"]:
    blue, red = blue - 128, red - 128
    red_part = (_fixed(1.402) * red + _HALF) >> _FRACTION_BITS
    green_part = (-_fixed(0.344136286) * blue - _fixed(0.714136286) * red + _HALF) >> _FRACTION_BITS
    blue_part = (_fixed(1.772) * blue + _HALF) >> _FRACTION_BITS
    return jnp.clip(
        jnp.stack([luma + red_part, luma + green_part, luma + blue_part], axis=1), 0, 255
    )


def _halved(plane: Int[Array, "batch height width"]) -> Int[Array, "batch half_height half_width"]:
    """Average 2 x 2 pixels; ties round down in even columns and up in odd ones."""
    batch, height, width = plane.shape
    total = plane.reshape(batch, height // 2, 2, width // 2, 2).sum(axis=(2, 4))
    bias = 1 + jnp.arange(width // 2) % 2
    return (total + bias) >> 2


def _doubled(plane: Int[Array, "batch height width"]) -> Int[Array, "batch double_height double"]:
    """Enlarge by linear interpolation: 3/4 of the nearer and 1/4 of the farther pixel an axis."""
    padded = jnp.pad(plane, ((0, 0), (1, 1), (1, 1)), mode="edge")
    centre = 3 * padded[:, 1:-1]
    rows = jnp.stack([centre + padded[:, :-2], centre + padded[:, 2:]], axis=2)
    batch, height, _, width = rows.shape
    rows = rows.reshape(batch, 2 * height, width)
    middle = 3 * rows[:, :, 1:-1]
    left = (middle + rows[:, :, :-2] + 8) >> 4
    right = (middle + rows[:, :, 2:] + 7) >> 4
    return jnp.stack([left, right], axis=3).reshape(batch, 2 * height, -1)


def _through_quantiser(
    plane: Int[Array, "batch height width"], steps: Float[Array, "8 8"]
) -> Int[Array, "batch height width"]:
    """Transform 8 x 8 blocks, round to multiples of the steps, transform back, clip to 0..255."""
    batch, height, width = plane.shape
    cosines = jnp.asarray(_cosine_matrix(), jnp.float32)
    blocks = (plane - 128).astype(jnp.float32)
    blocks = _along_blocks(blocks, cosines)
    shape = (batch, height // 8, 8, width // 8, 8)
    scale = steps[:, None, :]
    quotient = blocks.reshape(shape) / scale
    rounded = jnp.sign(quotient) * jnp.floor(jnp.abs(quotient) + 0.5)
    blocks = _along_blocks((rounded * scale).reshape(batch, height, width), cosines.T)
    return jnp.clip(jnp.floor(blocks + 128.5), 0, 255).astype(jnp.int32)


def _along_blocks(
    plane: Float[Array, "batch height width"], matrix: Float[Array, "8 8"]
) -> Float[Array, "batch height width"]:
    """Multiply both axes of every 8 x 8 block by a matrix."""
    batch, height, width = plane.shape
    blocks = plane.reshape(batch, height // 8, 8, width // 8, 8)
    blocks = jnp.einsum(
        "ui,vj,bricj->brucv", matrix, matrix, blocks, precision=jax.lax.Precision.HIGHEST
    )
    return blocks.reshape(batch, height, width)


def _cosine_matrix() -> np.ndarray:
    """Return the orthonormal (8, 8) matrix of the type-II discrete cosine transform."""
    frequency, position = np.arange(8)[:, None], np.arange(8)[None, :]
    matrix = np.cos((2 * position + 1) * frequency * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return matrix
