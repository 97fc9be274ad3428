"""A labelled sheet of all corruptions at all severities, drawn with Pillow."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, UInt8
from PIL import Image, ImageDraw, ImageFont

from lska_jax.robustness.corruptions.corrupting import corrupt
from lska_jax.robustness.corruptions.frost_pictures import FrostPictures
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS, SEVERITIES

_LABEL_SIZE, _LABEL_HEIGHT = 12, 18
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
    keys = jax.random.split(jax.random.key(seed), len(names))
    rows = {}
    for row, name in enumerate(names):
        clean = np.asarray(images[row % len(images)])
        rows[name] = {name: clean}
        for severity in severities:
            batch = corrupt(
                clean[None], name, severity, key=keys[row], frost_pictures=frost_pictures
            )
            rows[name][f"severity {severity}"] = np.asarray(batch[0])
    return draw_sheet(rows, tile_size=tile_size)


def draw_sheet(
    rows: Mapping[str, Mapping[str, UInt8[np.ndarray, "height width 3"]]], *, tile_size: int = 112
) -> Image.Image:
    """Draw tiles with labels above them.

    Args:
      rows: for each row its tiles by label, all of one size.
      tile_size: the longer side of a tile in pixels.
    """
    height, width, _ = next(iter(next(iter(rows.values())).values())).shape
    scale = tile_size / max(height, width)
    tile = max(round(width * scale), 1), max(round(height * scale), 1)
    font = ImageFont.load_default(_LABEL_SIZE)
    longest = max(font.getlength(label) for tiles in rows.values() for label in tiles)
    step = max(tile[0], math.ceil(longest)) + _GAP, tile[1] + _LABEL_HEIGHT + _GAP
    columns = max(len(tiles) for tiles in rows.values())
    sheet = Image.new("RGB", (step[0] * columns + _GAP, step[1] * len(rows) + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for row, tiles in enumerate(rows.values()):
        for column, (label, pixels) in enumerate(tiles.items()):
            left, top = _GAP + column * step[0], _GAP + row * step[1]
            draw.text((left, top), label, fill=_INK, font=font)
            picture = Image.fromarray(pixels).resize(tile, Image.Resampling.LANCZOS)
            sheet.paste(picture, (left, top + _LABEL_HEIGHT))
    return sheet
