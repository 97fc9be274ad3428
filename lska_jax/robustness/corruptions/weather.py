"""Snow, frost and fog (Hendrycks & Dietterich, arXiv 1903.12261)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lska_jax.robustness.corruptions import random_numbers
from lska_jax.robustness.corruptions.filters import (
    filter_height,
    filter_width,
    from_rows,
    size_ratio,
    to_rows,
    truncate_levels,
    zoom_centre,
    zoom_matrix,
)
from lska_jax.robustness.corruptions.frost_pictures import FrostPictures, cut_windows
from lska_jax.robustness.corruptions.motion import (
    blur_along,
    draw_angle,
    truncate_like_imagemagick,
)
from lska_jax.robustness.corruptions.severities import Severity, at, switched


class SnowSetting(NamedTuple):
    """The constants of one severity of snow.

    Attributes:
      mean: of the normal noise that flakes are cut from.
      std: of that noise.
      zoom: how many pixels (at 224 px) one noise value covers.
      threshold: noise below it is no snow.
      radius: of the motion blur, in pixels at 224 px.
      sigma: of the motion blur, in pixels at 224 px.
      kept: share of the clean image in the whitened one.
    """

    mean: float
    std: float
    zoom: float
    threshold: float
    radius: float
    sigma: float
    kept: float


SNOW_SETTINGS = (
    SnowSetting(0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
    SnowSetting(0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
    SnowSetting(0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
    SnowSetting(0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
    SnowSetting(0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
)
SNOW_ANGLES = (-135.0, -45.0)
# (weight of the image, weight of the frost); (strength, decay of the fog's roughness from one scale
# to the next). Severities 1 to 5.
FROST_WEIGHTS = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
FOG_SETTINGS = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))

_GREY = (0.299, 0.587, 0.114)
_FIRST_FOG_STEP = 100.0


class SnowDraws(NamedTuple):
    """What chance decides about snow.

    Attributes:
      normal: standard normal noise, row by row of the centre that is zoomed; a severity that zooms
        into fewer pixels takes the first ones.
      angle: of the fall, in degrees.
    """

    normal: Float[Array, "*batch numbers"]
    angle: Float[Array, "*batch"]


class FrostDraws(NamedTuple):
    """What chance decides about frost: three uniforms in [0, 1): picture, top, left."""

    uniforms: Float[Array, "*batch 3"]


def snow_zoom(zoom: float, height: int, width: int) -> float:
    """Return the zoom for a size; a flake is never smaller than a pixel."""
    return max(zoom * size_ratio(height, width), 1.0)


def flake_counts(zoom: float, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of the noise that is zoomed to a size."""
    factor = snow_zoom(zoom, height, width)
    return zoom_centre(height, factor)[1], zoom_centre(width, factor)[1]


def draw_snow(key: jax.Array, height: int, width: int) -> SnowDraws:
    """Draw the noise and the direction of one image's snow.

    The generator draws noise for the whole image and zooms into its centre; only the centre is
    drawn here.
    """
    noise_key, angle_key = random_numbers.split(key)
    most = max(math.prod(flake_counts(s.zoom, height, width)) for s in SNOW_SETTINGS)
    return SnowDraws(
        random_numbers.normal(noise_key, (most,)), draw_angle(angle_key, angles=SNOW_ANGLES)
    )


def snow(
    images: Float[Array, "batch height width 3"], draws: SnowDraws, *, severity: Severity
) -> Float[Array, "batch height width 3"]:
    """Whiten the image and add falling snow and the same snow turned by half a circle.

    Noise is zoomed, cut off below the threshold, truncated to grey levels and blurred along its
    fall; the image becomes kept x + (1 - kept) max(x, 1.5 grey + 0.5). Zoom, radius and sigma are
    multiplied by the shorter side over 224.
    """
    _, height, width, _ = images.shape
    mean, std, threshold, kept, rest = (
        at(severity, values)
        for values in zip(
            *((s.mean, s.std, s.threshold, s.kept, 1.0 - s.kept) for s in SNOW_SETTINGS),
            strict=True,
        )
    )

    def zoomed(zoom: float, noise: Float[Array, "batch numbers"]) -> Float[Array, "..."]:
        factor = snow_zoom(zoom, height, width)
        top, rows = zoom_centre(height, factor)
        left, columns = zoom_centre(width, factor)
        centre = noise[:, : rows * columns].reshape(-1, rows, columns, 1)
        wide = filter_width(to_rows(centre), zoom_matrix(width, factor)[:, left : left + columns])
        return from_rows(
            filter_height(wide, zoom_matrix(height, factor)[:, top : top + rows]), channels=1
        )

    zooms = [setting.zoom for setting in SNOW_SETTINGS]
    layer = switched(severity, zooms, zoomed, mean + std * draws.normal)
    layer = truncate_levels(jnp.where(layer < threshold, 0.0, layer)) / 255.0
    paths = [(setting.radius, setting.sigma) for setting in SNOW_SETTINGS]
    layer = blur_along(layer, draws.angle, settings=paths, severity=severity)
    layer = truncate_like_imagemagick(layer)
    grey = jnp.sum(images * jnp.asarray(_GREY, jnp.float32), axis=-1, keepdims=True)
    white = jnp.maximum(images, grey * 1.5 + 0.5)
    whitened = kept * images + rest * white
    return jnp.clip(whitened + layer + layer[:, ::-1, ::-1], 0.0, 1.0)


def draw_frost(key: jax.Array) -> FrostDraws:
    """Draw the picture and the place of one image's frost."""
    return FrostDraws(random_numbers.uniform(key, (3,)))


def frost(
    images: Float[Array, "batch height width 3"],
    draws: FrostDraws,
    *,
    image_weight: float | Float[Array, ""],
    frost_weight: float | Float[Array, ""],
    pictures: FrostPictures,
    faithful: bool,
) -> Float[Array, "batch height width 3"]:
    """Return clip(a x + b f), f a random window of a random picture of frost.

    The generator names six pictures and draws one of the first five; ``faithful=False`` draws one
    of all. A window is 224 px on its shorter side and is resized to the image.
    """
    _, height, width, _ = images.shape
    windows = cut_windows(
        pictures, draws.uniforms, height=height, width=width, use_all=not faithful
    )
    return jnp.clip(image_weight * images + frost_weight * windows, 0.0, 1.0)


def draw_fog(key: jax.Array, height: int, width: int) -> Float[Array, " numbers"]:
    """Draw uniforms in [-1, 1) for one image's fog: 3 for each square of each of its steps."""
    steps = max(math.ceil(math.log2(max(height, width))), 1)
    return random_numbers.uniform(key, (4**steps - 1,), -1.0, 1.0)


def fog(
    images: Float[Array, "batch height width 3"],
    draws: Float[Array, "batch numbers"],
    *,
    severity: Severity,
) -> Float[Array, "batch height width 3"]:
    """Return clip((x + strength fog) m / (m + strength)), m the image's largest value.

    The fog is a plasma fractal over the smallest power of two that covers the image (256 at 224
    px), so it fits any size.
    """
    _, height, width, _ = images.shape
    strength = at(severity, [strength for strength, _ in FOG_SETTINGS])
    heights = plasma_fractal(draws, decays=[decay for _, decay in FOG_SETTINGS], severity=severity)
    layer = strength * heights[:, :height, :width, None]
    largest = jnp.max(images, axis=(1, 2, 3), keepdims=True)
    return jnp.clip((images + layer) * largest / (largest + strength), 0.0, 1.0)


def plasma_fractal(
    draws: Float[Array, "batch numbers"], *, decays: Sequence[float], severity: Severity
) -> Float[Array, "batch size size"]:
    """Grow a height map in [0, 1] by the diamond-square method, wrapped around at its borders.

    Every step halves the grid: the middle of a square becomes the mean of its four corners, the
    middle of an edge the mean of its two ends and of the middles of the two squares beside it, each
    plus w^2 u with u the draw, uniform in [-1, 1), and w = 100 at first, divided by the severity's
    decay after every step. (The generator multiplies a draw from -w..w by w.)
    """
    batch, numbers = draws.shape
    corners = jnp.zeros((batch, 1, 1), jnp.float32)
    steps = round(math.log(numbers + 1, 4))
    roughness = at(severity, [_roughness(decay, steps) for decay in decays])
    used = 0
    for step in range(steps):
        side = corners.shape[1]
        rough = roughness[step] * draws[:, used : used + 3 * side**2].reshape(batch, 3, side, side)
        used += 3 * side**2
        pairs = corners + jnp.roll(corners, -1, axis=1)
        middles = (pairs + jnp.roll(pairs, -1, axis=2)) / 4 + rough[:, 0]
        right = (
            middles + jnp.roll(middles, 1, axis=1) + corners + jnp.roll(corners, -1, axis=2)
        ) / 4 + rough[:, 1]
        below = (
            middles + jnp.roll(middles, 1, axis=2) + corners + jnp.roll(corners, -1, axis=1)
        ) / 4 + rough[:, 2]
        upper = jnp.stack([corners, right], axis=-1)
        lower = jnp.stack([below, middles], axis=-1)
        corners = jnp.stack([upper, lower], axis=2).reshape(batch, 2 * side, 2 * side)
        # Kept apart for the compiler: fused, every step would compute all earlier ones again.
        corners = jax.lax.optimization_barrier(corners)
    lowest = jnp.min(corners, axis=(1, 2), keepdims=True)
    highest = jnp.max(corners, axis=(1, 2), keepdims=True)
    return (corners - lowest) / jnp.maximum(highest - lowest, 1e-6)


def _roughness(decay: float, steps: int) -> list[float]:
    """Return w^2 of every step."""
    widths = [_FIRST_FOG_STEP]
    for _ in range(steps - 1):
        widths.append(widths[-1] / decay)
    return [width**2 for width in widths]
