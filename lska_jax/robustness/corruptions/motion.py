"""Motion blur: a one-sided Gaussian along a line, as ImageMagick draws it.

The published generator (arXiv 1903.12261) calls ImageMagick's motion blur; tap i of n = 2 r + 1 has
the weight exp(-i^2 / (2 sigma^2)), normalised, and reads the pixel at (down, right) =
(ceil(i sin a - 1/2), ceil(i cos a - 1/2)), the border pixels repeated. Radius and sigma are in
pixels at 224 px and are multiplied by the shorter side over 224.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lska_jax.robustness.corruptions.filters import size_ratio

# (radius, sigma) in pixels at severities 1 to 5, and the range of the angle in degrees.
MOTION_SETTINGS = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
MOTION_ANGLES = (-45.0, 45.0)


def draw_angle(key: jax.Array, *, angles: tuple[float, float] = MOTION_ANGLES) -> Float[Array, ""]:
    """Draw the direction of one image's motion in degrees."""
    return jax.random.uniform(key, (), jnp.float32, *angles)


def motion_blur(
    images: Float[Array, "batch height width 3"],
    angles: Float[Array, " batch"],
    *,
    radius: float,
    sigma: float,
) -> Float[Array, "batch height width 3"]:
    """Blur along a direction of each image's own; the result is in whole grey levels."""
    _, height, width, _ = images.shape
    ratio = size_ratio(height, width)
    blurred = blur_along(images, angles, radius=radius * ratio, sigma=sigma * ratio)
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
    radius: float,
    sigma: float,
) -> Float[Array, "batch height width channels"]:
    """Sum the taps for lengths in pixels of these images.

    The directions differ, so the images are taken one after another; the shifts of one image are
    then plain slices at a moving start.
    """
    weights, reach = motion_weights(radius, sigma)
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    down, right = _offsets(angles, reach)

    def blur_one(
        one: tuple[Float[Array, "..."], Array, Array],
    ) -> Float[Array, "height width channels"]:
        image, down, right = one
        total = jnp.zeros((height, width, channels), jnp.float32)
        for i, weight in enumerate(weights):
            start = (reach + down[i], reach + right[i], 0)
            total += weight * jax.lax.dynamic_slice(image, start, (height, width, channels))
        return total

    return jax.lax.map(blur_one, (padded, down, right))


def motion_weights(radius: float, sigma: float) -> tuple[list[float], int]:
    """Return the taps' weights, from the pixel itself outwards, and the farthest tap."""
    count = 2 * math.ceil(radius) + 1
    weights = np.exp(-0.5 * (np.arange(count) / max(sigma, 1e-6)) ** 2)
    return [float(weight) for weight in weights / weights.sum()], count - 1


def _offsets(angles: Float[Array, " batch"], reach: int) -> tuple[Array, Array]:
    """Return how far down and right each tap reads, two (B, reach + 1) int32 arrays."""
    taps = jnp.arange(reach + 1)
    radians = jnp.deg2rad(angles)[:, None]
    down = jnp.ceil(taps * jnp.sin(radians) - 0.5).astype(jnp.int32)
    right = jnp.ceil(taps * jnp.cos(radians) - 0.5).astype(jnp.int32)
    return down, right
