"""A class a pixel as a colour map over its image, with a legend beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw

from lska_jax.data.scenes import IGNORED_LABEL
from lska_jax.tasks.pictures.colours import Colour, class_colours
from lska_jax.tasks.pictures.text import draw_text, shorten, text_size

_LEAST_SIDE = 512
_OPACITY = 0.65
_INK, _FAINT, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)
# What is no class is shown without colour, and darker.
_UNLABELLED_LIGHT = 0.4
_UNLABELLED_SQUARE = (40, 40, 40)
# A class of this name is what lies around all others: without colour too, which leaves it to them.
_BACKGROUND = "background"
_BACKGROUND_SQUARE = (200, 200, 200)
_MOST_IN_LEGEND = 24


def draw_label_map(
    image: UInt8[np.ndarray, "height width 3"],
    label_map: Integer[np.ndarray, "height width"],
    *,
    class_names: Sequence[str],
    colours: Sequence[Colour] | None = None,
    use_legend: bool = True,
    least_side: int = _LEAST_SIDE,
) -> Image.Image:
    """Return an image tinted by its classes; one that is called "background" stays grey.

    Args:
      image: pixels.
      label_map: class of each pixel; 255 is none.
      class_names: in label order.
      colours: of the classes; None is ``class_colours``.
      use_legend: whether the classes that occur are listed beside it, the largest first.
      least_side: images with a shorter longer side are enlarged by a whole number.
    """
    height, width = image.shape[:2]
    zoom = max(1, -(-least_side // max(height, width)))
    palette = np.zeros((256, 3), np.uint8)
    known = list(colours or class_colours(len(class_names)))
    palette[: len(known)] = np.array(known, np.uint8).reshape(-1, 3)
    enlarged = Image.fromarray(image).resize(
        (width * zoom, height * zoom), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(enlarged, np.float32)
    labels = label_map.repeat(zoom, 0).repeat(zoom, 1)
    # Under the tint the image is grey, so that no colour of its own is taken for a class.
    grey = pixels.mean(-1, keepdims=True)
    tinted = grey * (1 - _OPACITY) + palette[labels].astype(np.float32) * _OPACITY
    around = [label for label, name in enumerate(class_names) if _is_background(name)]
    tinted = np.where(np.isin(labels, around)[..., None], grey, tinted)
    is_labelled = (labels != IGNORED_LABEL)[..., None]
    tinted = np.where(is_labelled, tinted, grey * _UNLABELLED_LIGHT)
    picture = Image.fromarray(tinted.astype(np.uint8))
    if not use_legend:
        return picture
    counts = np.bincount(label_map.ravel(), minlength=256)
    legend = draw_legend(counts, class_names=class_names, colours=known, height=picture.height)
    return put_beside(picture, legend)


def draw_legend(
    counts: Integer[np.ndarray, " 256"],
    *,
    class_names: Sequence[str],
    colours: Sequence[Colour],
    height: int,
) -> Image.Image:
    """Return a column of the classes that occur, the largest first, with their parts.

    Args:
      counts: pixels of each class; the last is what is unlabelled.
      class_names: in label order.
      colours: of the classes.
      height: of the column, in pixels.
    """
    if not counts.any():
        return Image.new("RGB", (1, height), _PAPER)
    order = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
    size = max(14, round(height / 36))
    line = round(size * 1.6)
    most = max(1, min(_MOST_IN_LEGEND, (height - line // 2) // line))
    shown = order if len(order) <= most else order[: most - 1]
    rows: list[tuple[Colour | None, str, str]] = []
    for label in shown:
        part = f"{100 * counts[label] / counts.sum():.1f}%"
        if label == IGNORED_LABEL:
            rows.append((_UNLABELLED_SQUARE, "unlabelled", part))
        else:
            name = class_names[label] if label < len(class_names) else f"class {label}"
            square = _BACKGROUND_SQUARE if _is_background(name) else colours[label]
            rows.append((square, shorten(name, size, width=14 * size), part))
    if len(shown) < len(order):
        rows.append((None, f"and {len(order) - len(shown)} more", ""))
    widest = max(text_size(name, size)[0] for _, name, _ in rows)
    room = text_size("100.0%", size)[0]
    legend = Image.new("RGB", (2 * size + widest + size + room + size, height), _PAPER)
    draw = ImageDraw.Draw(legend)
    for number, (colour, name, part) in enumerate(rows):
        top = line // 2 + number * line
        if colour is not None:
            square = (size // 2, top, size // 2 + size, top + size)
            draw.rectangle(square, fill=colour, outline=(90, 90, 90))
        draw_text(draw, (2 * size, top), name, size=size, colour=_INK)
        left = legend.width - size - text_size(part, size)[0]
        draw_text(draw, (left, top), part, size=size, colour=_FAINT)
    return legend


def put_beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Return two pictures as one; the left one decides its height."""
    joined = Image.new("RGB", (left.width + right.width, left.height), _PAPER)
    joined.paste(left, (0, 0))
    joined.paste(right, (left.width, 0))
    return joined


def _is_background(name: str) -> bool:
    return name.casefold() == _BACKGROUND
