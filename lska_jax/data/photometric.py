"""Photometric distortion on the device: brightness, contrast, saturation and hue at random.

The recipes of segmentors draw each with probability 1/2: brightness is shifted by up to 32 levels,
contrast and saturation are multiplied by 1/2 to 3/2, hue is turned by up to 18 of 180 steps. A fair
coin decides whether contrast comes behind brightness or last. Levels are cut to 0..255 and to whole
numbers after every step, hue and saturation to those of OpenCV, as in mmsegmentation 0.x.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

_BRIGHTNESS = 32.0
_FACTORS = (0.5, 1.5)
_HUES = 180
_HUE_STEPS = 18


class _Drawn(NamedTuple):
    """What happens to each image, (B,) each; 0 or 1 where a step is left out."""

    brightness: Array
    contrast: Array
    is_contrast_last: Array
    saturation: Array
    hue: Array


def distort(
    images: UInt8[Array, "batch height width 3"], key: jax.Array
) -> UInt8[Array, "batch height width 3"]:
    """Return images whose light and colours were changed at random, each by its own draw.

    Args:
      images: RGB.
      key: a PRNG key.
    """
    drawn = _draw(key, images.shape[0])
    levels = images.astype(jnp.float32) + _per_image(drawn.brightness)
    levels = _cut(levels)
    factor = _per_image(drawn.contrast)
    is_last = _per_image(drawn.is_contrast_last)
    levels = _cut(levels * jnp.where(is_last, 1.0, factor))
    levels = _change_colours(levels, drawn.saturation, drawn.hue)
    return _cut(levels * jnp.where(is_last, factor, 1.0)).astype(jnp.uint8)


def _draw(key: jax.Array, count: int) -> _Drawn:
    keys = jax.random.split(key, 8)
    happens = [jax.random.bernoulli(k, 0.5, (count,)) for k in keys[:4]]

    def uniform(number: int, low: float, high: float) -> Array:
        return jax.random.uniform(keys[4 + number], (count,), jnp.float32, low, high)

    more = jax.random.split(keys[7])
    hue = jax.random.randint(more[0], (count,), -_HUE_STEPS, _HUE_STEPS).astype(jnp.float32)
    return _Drawn(
        brightness=jnp.where(happens[0], uniform(0, -_BRIGHTNESS, _BRIGHTNESS), 0.0),
        contrast=jnp.where(happens[1], uniform(1, *_FACTORS), 1.0),
        is_contrast_last=jax.random.bernoulli(more[1], 0.5, (count,)),
        saturation=jnp.where(happens[2], uniform(2, *_FACTORS), 1.0),
        hue=jnp.where(happens[3], hue, 0.0),
    )


def _change_colours(levels: Array, saturation: Array, hue: Array) -> Array:
    """Return levels with another saturation and hue; images that keep both stay as they are."""
    hues, saturations, values = to_hsv(levels)
    wide = (saturation[:, None, None], hue[:, None, None])
    saturations = _cut(saturations * wide[0])
    hues = jnp.mod(hues + wide[1], float(_HUES))
    changed = _cut(jnp.round(to_rgb(hues, saturations, values)))
    is_kept = _per_image((saturation == 1.0) & (hue == 0.0))
    return jnp.where(is_kept, levels, changed)


def to_hsv(
    levels: Float[Array, "batch height width 3"],
) -> tuple[
    Float[Array, "batch height width"],
    Float[Array, "batch height width"],
    Float[Array, "batch height width"],
]:
    """Return hue in 0..179, saturation and value in 0..255, whole numbers, of RGB in 0..255."""
    red, green, blue = (levels[..., channel] for channel in range(3))
    value = jnp.max(levels, axis=-1)
    spread = value - jnp.min(levels, axis=-1)
    safe = jnp.where(spread > 0, spread, 1.0)
    degrees = jnp.where(
        value == red,
        60.0 * (green - blue) / safe,
        jnp.where(
            value == green,
            120.0 + 60.0 * (blue - red) / safe,
            240.0 + 60.0 * (red - green) / safe,
        ),
    )
    degrees = jnp.where(spread > 0, jnp.mod(degrees, 360.0), 0.0)
    saturation = 255.0 * spread / jnp.where(value > 0, value, 1.0)
    return jnp.mod(jnp.round(degrees / 2.0), float(_HUES)), jnp.round(saturation), value


def to_rgb(
    hue: Float[Array, "batch height width"],
    saturation: Float[Array, "batch height width"],
    value: Float[Array, "batch height width"],
) -> Float[Array, "batch height width 3"]:
    """Return RGB in 0..255, not rounded; arguments are those that ``to_hsv`` returns."""
    sector = hue * (6.0 / _HUES)
    chroma = value * saturation / 255.0

    def channel(shift: float) -> Array:
        place = jnp.mod(sector + shift, 6.0)
        return value - chroma * jnp.clip(jnp.minimum(place, 4.0 - place), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)


def _cut(levels: Array) -> Array:
    return jnp.floor(jnp.clip(levels, 0.0, 255.0))


def _per_image(values: Array) -> Array:
    return values[:, None, None, None]
