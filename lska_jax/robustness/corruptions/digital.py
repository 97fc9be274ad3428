"""Brightness, contrast, saturation and pixelation (arXiv 1903.12261).

The first three act on colours and have no length. Pixelation shrinks by a factor, so it fits any
size as it is.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lska_jax.robustness.corruptions.filters import (
    box_matrix,
    filter_height,
    filter_width,
    from_rows,
    to_rows,
)

# What is added to the value, the factor of the contrast, (factor, summand) of the saturation, and
# the size of the pixelated image over that of the clean one, at severities 1 to 5.
BRIGHTNESS_SUMMANDS = (0.1, 0.2, 0.3, 0.4, 0.5)
CONTRAST_FACTORS = (0.4, 0.3, 0.2, 0.1, 0.05)
SATURATION_CHANGES = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))
PIXELATE_FACTORS = (0.6, 0.5, 0.4, 0.3, 0.25)

# Half a grey level, and a little for what float32 leaves below a tie, which Pillow rounds up.
_ROUND_UP = 0.5 + 1e-4


def brightness(
    images: Float[Array, "batch height width 3"], *, summand: float | Float[Array, ""]
) -> Float[Array, "batch height width 3"]:
    """Add to the value V = max(R, G, B) of the HSV colour, clipped to 1.

    At fixed hue and saturation a colour is proportional to its value, so the new colour is the old
    one times V' / V; black becomes grey.
    """
    value = jnp.max(images, axis=-1, keepdims=True)
    new_value = jnp.clip(value + summand, 0.0, 1.0)
    return jnp.where(value > 0, images / jnp.maximum(value, 1e-6), 1.0) * new_value


def saturate(
    images: Float[Array, "batch height width 3"],
    *,
    factor: float | Float[Array, ""],
    summand: float | Float[Array, ""],
) -> Float[Array, "batch height width 3"]:
    """Change the saturation S = 1 - min / max of the HSV colour to clip(factor S + summand).

    At fixed hue and value V a channel is V (1 - S g), where g = (V - x) / (max - min) does not
    depend on S. A grey pixel has the hue of red, as in scikit-image: g = (0, 1, 1).
    """
    value = jnp.max(images, axis=-1, keepdims=True)
    spread = value - jnp.min(images, axis=-1, keepdims=True)
    red = jnp.asarray([0.0, 1.0, 1.0], jnp.float32)
    share = jnp.where(spread > 0, (value - images) / jnp.maximum(spread, 1e-6), red)
    saturation = jnp.where(value > 0, spread / jnp.maximum(value, 1e-6), 0.0)
    new_saturation = jnp.clip(saturation * factor + summand, 0.0, 1.0)
    return value * (1.0 - new_saturation * share)


def contrast(
    images: Float[Array, "batch height width 3"], *, factor: float | Float[Array, ""]
) -> Float[Array, "batch height width 3"]:
    """Return (x - mean) factor + mean, with the mean of each channel of each image."""
    means = jnp.mean(images, axis=(1, 2), keepdims=True)
    return jnp.clip((images - means) * factor + means, 0.0, 1.0)


def pixelate(
    images: Float[Array, "batch height width 3"], *, factor: float
) -> Float[Array, "batch height width 3"]:
    """Shrink to floor(factor size) by averaging boxes, then enlarge again by repeating pixels.

    Both steps are Pillow's BOX resizing, which works on uint8: columns first, rounded, then rows,
    rounded. Enlarging by BOX picks the pixel whose box holds the centre.
    """
    _, height, width, _ = images.shape
    low_height, low_width = max(int(height * factor), 1), max(int(width * factor), 1)
    shrink_rows, shrink_columns = box_matrix(height, low_height), box_matrix(width, low_width)
    grow_rows = box_matrix(low_height, height).argmax(axis=1)
    grow_columns = box_matrix(low_width, width).argmax(axis=1)
    rows = to_rows(images * 255.0)
    rows = jnp.floor(filter_width(rows, shrink_columns) + _ROUND_UP)
    rows = jnp.floor(filter_height(rows, shrink_rows) + _ROUND_UP)
    small = from_rows(rows, channels=3)
    return small[:, grow_rows][:, :, grow_columns] / 255.0
