"""Motion blur: a one-sided Gaussian along a line, as ImageMagick draws it.

The published generator (arXiv 1903.12261) calls ImageMagick's motion blur; tap i of n = 2 r + 1 has
the weight exp(-i^2 / (2 sigma^2)), normalised, and reads the pixel at (down, right) =
(ceil(i sin a - 1/2), ceil(i cos a - 1/2)), the border pixels repeated. Radius and sigma are in
pixels at 224 px and are multiplied by the shorter side over 224.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lska_jax.robustness.corruptions import random_numbers
from lska_jax.robustness.corruptions.filters import size_ratio
from lska_jax.robustness.corruptions.severities import Severity, at

# (radius, sigma) in pixels at severities 1 to 5, and the range of the angle in degrees.
MOTION_SETTINGS = ((10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0))
MOTION_ANGLES = (-45.0, 45.0)

# Taps are added so many at a time. At 224 px there are 21, 25, 31 or 41: few are added for nothing.
_TAPS_AT_ONCE = 7


def draw_angle(key: jax.Array, *, angles: tuple[float, float] = MOTION_ANGLES) -> Float[Array, ""]:
    """Draw the direction of one image's motion in degrees."""
    return random_numbers.uniform(key, (), *angles)


def motion_blur(
    images: Float[Array, "batch height width 3"],
    angles: Float[Array, " batch"],
    *,
    severity: Severity,
) -> Float[Array, "batch height width 3"]:
    """Blur along a direction of each image's own; the result is in whole grey levels."""
    blurred = blur_along(images, angles, settings=MOTION_SETTINGS, severity=severity)
    return truncate_like_imagemagick(blurred)


def truncate_like_imagemagick(images: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return values in [0, 1] in whole grey levels as ImageMagick writes them.

    It holds them as multiples of 1/257 of a level, rounded, and writes the whole levels below.
    """
    return jnp.floor(images * 255.0 + 0.5 / 257.0) / 255.0


def blur_along(
    images: Float[Array, "batch height width channels"],
    angles: Float[Array, " batch"],
    *,
    settings: Sequence[tuple[float, float]],
    severity: Severity,
) -> Float[Array, "batch height width channels"]:
    """Sum the taps of a severity.

    The directions differ, so the images are taken one after another; the shifts of one image are
    then plain slices at a moving start.

    Args:
      images: what is blurred.
      angles: (B,) in degrees.
      settings: radius and sigma in pixels at 224 px, of every severity.
      severity: which of them.
    """
    _, height, width, channels = images.shape
    ratio = size_ratio(height, width)
    weights = [motion_weights(radius * ratio, sigma * ratio) for radius, sigma in settings]
    rounds = [math.ceil(len(taps) / _TAPS_AT_ONCE) for taps in weights]
    # What is missing to the longest weighs nothing.
    table = np.zeros((len(settings), max(rounds) * _TAPS_AT_ONCE))
    for row, taps in zip(table, weights, strict=True):
        row[: len(taps)] = taps
    weight = at(severity, table)
    reach = table.shape[1] - 1
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")

    def blur_one(
        one: tuple[Float[Array, "..."], Array, Array],
    ) -> Float[Array, "height width channels"]:
        image, down, right = one

        def add(number: Array, total: Float[Array, "..."]) -> Float[Array, "..."]:
            for tap in range(_TAPS_AT_ONCE):
                i = number * _TAPS_AT_ONCE + tap
                start = (reach + down[i], reach + right[i], 0)
                part = jax.lax.dynamic_slice(image, start, (height, width, channels))
                total = total + weight[i] * part
            return total

        nothing = jnp.zeros((height, width, channels), jnp.float32)
        return jax.lax.fori_loop(0, at(severity, rounds), add, nothing)

    return jax.lax.map(blur_one, (padded, *_offsets(angles, reach)))


def motion_weights(radius: float, sigma: float) -> np.ndarray:
    """Return the taps' weights, from the pixel itself outwards."""
    count = 2 * math.ceil(radius) + 1
    weights = np.exp(-0.5 * (np.arange(count) / max(sigma, 1e-6)) ** 2)
    return weights / weights.sum()


def _offsets(angles: Float[Array, " batch"], reach: int) -> tuple[Array, Array]:
    """Return how far down and right each tap reads, two (B, reach + 1) int32 arrays."""
    taps = jnp.arange(reach + 1)
    radians = jnp.deg2rad(angles)[:, None]
    down = jnp.ceil(taps * jnp.sin(radians) - 0.5).astype(jnp.int32)
    right = jnp.ceil(taps * jnp.cos(radians) - 0.5).astype(jnp.int32)
    return down, right
