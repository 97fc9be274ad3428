"""Boxes, masks and labels over an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw

from lska_jax.tasks.pictures.colours import Colour, class_colours
from lska_jax.tasks.pictures.text import Area, draw_tag, place_tag

# Smaller images are enlarged, so that text has room.
_LEAST_SIDE = 512
_OPACITY = 0.45


def draw_objects(
    image: UInt8[np.ndarray, "height width 3"],
    boxes: Float32[np.ndarray, "objects 4"],
    *,
    labels: Sequence[int] | np.ndarray,
    class_names: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
    masks: Bool[np.ndarray, "objects height width"] | None = None,
    colours: Sequence[Colour] | None = None,
    least_side: int = _LEAST_SIDE,
) -> Image.Image:
    """Return an image with its objects drawn, the first on top.

    Args:
      image: pixels.
      boxes: x1 y1 x2 y2 in pixels of the image.
      labels: class of each object.
      class_names: in label order.
      scores: of each object in [0, 1]; None for a truth.
      masks: which pixels each object is; None draws boxes alone.
      colours: of the classes; None is ``class_colours``.
      least_side: images with a shorter longer side are enlarged by a whole number.
    """
    height, width = image.shape[:2]
    zoom = max(1, -(-least_side // max(height, width)))
    known = colours or class_colours(len(class_names))
    pixels = image.repeat(zoom, 0).repeat(zoom, 1)
    if zoom > 1:
        enlarged = Image.fromarray(image).resize(
            (width * zoom, height * zoom), Image.Resampling.BICUBIC
        )
        pixels = np.array(enlarged)
    order = range(len(boxes) - 1, -1, -1)
    line = max(2, round(max(pixels.shape[:2]) / 350))
    if masks is not None:
        for number in order:
            mask = masks[number].repeat(zoom, 0).repeat(zoom, 1)
            _lay_mask(pixels, mask, known[int(labels[number])], edge=line)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    areas = [Area(*map(int, box)) for box in np.rint(boxes * zoom)]
    for number in order:
        _draw_box(draw, areas[number], known[int(labels[number])], line=line)
    size = max(14, round(max(picture.size) / 36))
    taken: list[Area] = []
    tags: list[tuple[Area, str, int]] = []
    # The first has the best place, and is drawn last.
    for number, area in enumerate(areas):
        label = int(labels[number])
        text = class_names[label]
        if scores is not None:
            text += f" {100 * float(scores[number]):.0f}%"
        tag = place_tag(text, area, size=size, canvas=picture.size, taken=taken)
        taken.append(tag)
        tags.append((tag, text, label))
    for tag, text, label in reversed(tags):
        draw_tag(draw, tag, text, size=size, ground=known[label])
    return picture


def _lay_mask(
    pixels: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    colour: tuple[int, int, int],
    *,
    edge: int,
) -> None:
    """Tint what a mask holds, and draw its edge inside."""
    inside = mask.copy()
    for _ in range(edge):
        padded = np.pad(inside, 1)
        inside &= padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    tint = np.array(colour, np.float32)[None]
    pixels[inside] = (pixels[inside] * (1 - _OPACITY) + tint * _OPACITY).astype(np.uint8)
    pixels[mask & ~inside] = colour


def _draw_box(
    draw: ImageDraw.ImageDraw, area: Area, colour: tuple[int, int, int], *, line: int
) -> None:
    """Draw a box with a thin dark rim on both sides of its line, to be seen on any ground."""
    left, top, right, bottom = area
    # Far edges are the first pixels beyond the box.
    right, bottom = max(right - 1, left), max(bottom - 1, top)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(0, 0, 0), width=line + 2)
    draw.rectangle((left, top, right, bottom), outline=colour, width=line)
