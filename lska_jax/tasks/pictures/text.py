"""Text in pictures: one font, and tags that keep out of each other's way."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import ImageDraw, ImageFont

from lska_jax.tasks.pictures.colours import Colour, text_colour

# What decides how high a line is: no accent, so that most lines sit in the middle.
_HEIGHTS = "Hlgjp"


class Area(NamedTuple):
    """A rectangle in pixels; right and bottom are the first ones beyond it."""

    left: int
    top: int
    right: int
    bottom: int

    def common(self, other: Area) -> int:
        """Return how many square pixels two rectangles have in common."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans at a size in pixels; Pillow's own font has ASCII alone.

    It lies in matplotlib, which is not imported for it.
    """
    found = importlib.util.find_spec("matplotlib")
    assert found is not None and found.origin is not None
    file = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(file, size)


def text_size(text: str, size: int) -> tuple[int, int]:
    """Return width and height of a line of text; lines of one size are equally high."""
    chosen = font(size)
    left, _, right, _ = chosen.getbbox(text)
    _, top, _, bottom = chosen.getbbox(_HEIGHTS)
    return int(right - left), int(bottom - top)


def draw_text(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, *, size: int, colour: Colour
) -> None:
    """Draw a line of text with its upper left corner at a place."""
    chosen = font(size)
    left = chosen.getbbox(text)[0]
    top = chosen.getbbox(_HEIGHTS)[1]
    draw.text((corner[0] - left, corner[1] - top), text, fill=colour, font=chosen)


def shorten(text: str, size: int, *, width: int) -> str:
    """Return a text that is no wider than some pixels, with dots where it was cut."""
    if text_size(text, size)[0] <= width:
        return text
    while text and text_size(f"{text}...", size)[0] > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


def place_tag(
    text: str, box: Area, *, size: int, canvas: tuple[int, int], taken: Sequence[Area]
) -> Area:
    """Return where the tag of a box goes: where it covers the least of other tags.

    Args:
      text: of the tag.
      box: what it belongs to.
      size: of the text, in pixels.
      canvas: width and height of the picture, which tags stay within.
      taken: tags that are there already.
    """
    pad = max(2, size // 5)
    width, height = (side + 2 * pad for side in text_size(text, size))
    places = [
        (box.left, box.top - height),
        (box.left, box.bottom),
        (box.left, box.top),
        (box.right - width, box.top - height),
        (box.right - width, box.bottom),
        (box.right, box.top),
        (box.left - width, box.top),
        (box.right, box.bottom - height),
        (box.left - width, box.bottom - height),
        (box.left, box.bottom - height),
    ]
    best, least = Area(0, 0, 0, 0), math.inf
    for left, top in places:
        left = min(max(left, 0), canvas[0] - width)
        top = min(max(top, 0), canvas[1] - height)
        area = Area(left, top, left + width, top + height)
        covered = sum(area.common(other) for other in taken)
        if covered < least:
            best, least = area, covered
    return best


def draw_tag(
    draw: ImageDraw.ImageDraw, area: Area, text: str, *, size: int, ground: Colour
) -> None:
    """Draw a text on a ground that fills an area from ``place_tag``."""
    pad = max(2, size // 5)
    shown = (area.left, area.top, area.right - 1, area.bottom - 1)
    draw.rounded_rectangle(shown, radius=pad, fill=ground, outline=(0, 0, 0), width=1)
    draw_text(draw, (area.left + pad, area.top + pad), text, size=size, colour=text_colour(ground))
