"""Spatter: drops of water (severities 1 to 3) or splashes of mud (4 and 5) on the lens.

Hendrycks & Dietterich, arXiv 1903.12261. Sigmas are in pixels at 224 px and are multiplied by the
shorter side over 224; the noise is scaled so that its blurred spread, and with it the share of the
image that is covered, stays the same. The light and shade of the drops' rims are drawn with 3 x 3
kernels and distances up to 20 px at every size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lska_jax.robustness.corruptions import random_numbers
from lska_jax.robustness.corruptions.edges import canny_edges, chamfer_distance, equalised
from lska_jax.robustness.corruptions.filters import (
    box_filter,
    gaussian_filter,
    size_ratio,
    smoothed_spread,
)
from lska_jax.robustness.corruptions.severities import Severity, at, switched


class SpatterSetting(NamedTuple):
    """The constants of one severity.

    Attributes:
      mean: of the normal noise.
      std: of that noise.
      sigma: of its blur, in pixels at 224 px.
      threshold: blurred noise below it is dry.
      amount: the water's opacity, or the sigma in pixels at 224 px that smooths the mud's edges.
      is_mud: mud instead of water.
    """

    mean: float
    std: float
    sigma: float
    threshold: float
    amount: float
    is_mud: bool


SPATTER_SETTINGS = (
    SpatterSetting(0.65, 0.3, 4.0, 0.69, 0.6, False),
    SpatterSetting(0.65, 0.3, 3.0, 0.68, 0.6, False),
    SpatterSetting(0.65, 0.3, 2.0, 0.68, 0.5, False),
    SpatterSetting(0.65, 0.3, 1.0, 0.65, 1.5, True),
    SpatterSetting(0.67, 0.4, 1.0, 0.65, 1.5, True),
)

_WATER = (175, 238, 238)
_MUD = (63, 42, 20)
_CANNY_LOW, _CANNY_HIGH = 50.0, 150.0
_FARTHEST = 20
_LIGHT_FROM_BELOW = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_THICK_MUD = 0.8
_TRUNCATE = 4.0
# Float32 leaves what is a whole grey level in exact arithmetic a hair below it.
_ROUNDING_SLACK = 1e-3


def draw_spatter(key: jax.Array, height: int, width: int) -> Float[Array, "height width"]:
    """Draw standard normal noise for one image."""
    return random_numbers.normal(key, (height, width))


def spatter(
    images: Float[Array, "batch height width 3"],
    normal: Float[Array, "batch height width"],
    *,
    severity: Severity,
) -> Float[Array, "batch height width 3"]:
    """Blur noise, keep what is above the threshold, and draw it as water or mud."""
    _, height, width, _ = images.shape
    ratio = size_ratio(height, width)
    stds = [_scaled_std(setting, ratio) for setting in SPATTER_SETTINGS]
    mean, threshold, amount = (
        at(severity, values)
        for values in zip(*((s.mean, s.threshold, s.amount) for s in SPATTER_SETTINGS), strict=True)
    )
    sigmas = [setting.sigma * ratio for setting in SPATTER_SETTINGS]
    noise = (mean + at(severity, stds) * normal)[..., None]
    liquid = switched(severity, sigmas, lambda s, x: gaussian_filter(x, sigma=s), noise)[..., 0]

    def mud(liquid: Float[Array, "..."]) -> Float[Array, "..."]:
        return _mud(images, liquid > threshold, ratio, severity)

    def water(liquid: Float[Array, "..."]) -> Float[Array, "..."]:
        wet = jnp.where(liquid < threshold, 0.0, liquid)
        return _water(images, jnp.floor(wet * 255.0 + _ROUNDING_SLACK) % 256, amount)

    is_mud = at(severity, [int(setting.is_mud) for setting in SPATTER_SETTINGS])
    return jax.lax.cond(is_mud == 1, mud, water, liquid)


def _scaled_std(setting: SpatterSetting, ratio: float) -> float:
    if ratio == 1.0:
        return setting.std
    spread = smoothed_spread(setting.sigma, truncate=_TRUNCATE)
    return setting.std * spread / smoothed_spread(setting.sigma * ratio, truncate=_TRUNCATE)


def _water(
    images: Float[Array, "batch height width 3"],
    liquid: Float[Array, "batch height width"],
    opacity: Float[Array, ""],
) -> Float[Array, "batch height width 3"]:
    """Add pale turquoise, brightest where the water is deep and turned to the light.

    The distance from the drops' rims, smoothed and equalised, is a height map; a directional 3 x 3
    kernel lights it from one corner. Everything is in whole grey levels up to here, as in OpenCV.
    """
    rims = canny_edges(liquid, low=_CANNY_LOW, high=_CANNY_HIGH)
    distance = box_filter(chamfer_distance(rims, limit=float(_FARTHEST)))
    depth = equalised(jnp.floor(distance + _ROUNDING_SLACK), largest=_FARTHEST)
    shine = jnp.round(box_filter(jnp.clip(_lit(depth), 0, 255)))
    water = liquid * shine
    # Without any water the generator divides zero by zero.
    largest = jnp.maximum(jnp.max(water, axis=(1, 2), keepdims=True), 1.0)
    colour = jnp.asarray(_WATER, jnp.float32) / 255.0
    return jnp.clip(images + (water / largest * opacity)[..., None] * colour, 0.0, 1.0)


def _lit(depth: Float[Array, "batch height width"]) -> Float[Array, "batch height width"]:
    _, height, width = depth.shape
    padded = jnp.pad(depth, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    total = jnp.zeros_like(depth)
    for row, weights in enumerate(_LIGHT_FROM_BELOW):
        for column, weight in enumerate(weights):
            if weight:
                total += weight * padded[:, row : row + height, column : column + width]
    return total


def _mud(
    images: Float[Array, "batch height width 3"],
    is_muddy: Bool[Array, "batch height width"],
    ratio: float,
    severity: Severity,
) -> Float[Array, "batch height width 3"]:
    """Cover with brown where the smoothed mask is at least 0.8, by that share."""
    sigmas = [setting.amount * ratio for setting in SPATTER_SETTINGS if setting.is_mud]
    # Severities of water come first, and are not asked for.
    sigmas = sigmas[:1] * (len(SPATTER_SETTINGS) - len(sigmas)) + sigmas
    mask = is_muddy.astype(jnp.float32)[..., None]
    mask = switched(severity, sigmas, lambda s, x: gaussian_filter(x, sigma=s), mask)
    mask = jnp.where(mask < _THICK_MUD, 0.0, mask)
    colour = jnp.asarray(_MUD, jnp.float32) / 255.0
    return jnp.clip(images * (1.0 - mask) + colour * mask, 0.0, 1.0)
