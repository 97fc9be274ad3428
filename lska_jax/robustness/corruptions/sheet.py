"""A labelled sheet of all corruptions at all severities, drawn with Pillow."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, UInt8
from PIL import Image, ImageDraw, ImageFont

from lska_jax.robustness.corruptions.corrupting import corrupt
from lska_jax.robustness.corruptions.frost_pictures import FrostPictures
from lska_jax.robustness.corruptions.table import ALL_CORRUPTIONS, SEVERITIES

_LABEL_HEIGHT = 18
_GAP = 4
_BACKGROUND, _INK = "white", "black"


def sample_sheet(
    images: UInt8[np.ndarray | Array, "batch height width 3"],
    *,
    names: Sequence[str] = ALL_CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES,
    tile_size: int = 112,
    seed: int = 0,
    frost_pictures: FrostPictures | None = None,
) -> Image.Image:
    """Draw one row a corruption: the clean image, then one tile a severity.

    Args:
      images: (B, H, W, 3) uint8; row i shows image i modulo B.
      names: the corruptions.
      severities: the severities.
      tile_size: the longer side of a tile in pixels.
      seed: of the corruptions' keys.
      frost_pictures: see ``corrupt``.
    """
    _, height, width, _ = images.shape
    scale = tile_size / max(height, width)
    tile = max(round(width * scale), 1), max(round(height * scale), 1)
    step = tile[0] + _GAP, tile[1] + _LABEL_HEIGHT + _GAP
    size = step[0] * (len(severities) + 1) + _GAP, step[1] * len(names) + _GAP
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    keys = jax.random.split(jax.random.key(seed), len(names))
    for row, name in enumerate(names):
        clean = np.asarray(images[row % len(images)])
        tiles = {name: clean}
        for severity in severities:
            batch = corrupt(
                clean[None], name, severity, key=keys[row], frost_pictures=frost_pictures
            )
            tiles[f"severity {severity}"] = np.asarray(batch[0])
        for column, (label, pixels) in enumerate(tiles.items()):
            left, top = _GAP + column * step[0], _GAP + row * step[1]
            draw.text((left, top), label, fill=_INK, font=font)
            picture = Image.fromarray(pixels).resize(tile, Image.Resampling.LANCZOS)
            sheet.paste(picture, (left, top + _LABEL_HEIGHT))
    return sheet
