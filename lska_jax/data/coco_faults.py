"""What can be wrong with one annotation of a COCO file, in words.

Faults refuse the file: nothing is trained on an annotation that cannot mean what it says. Boxes
without a pixel of their image are no faults: the reference leaves them out, and so does
``coco_file``, which says so. Where masks are trained on, it leaves out those without a pixel too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from lska_jax.data.class_folders import readable
from lska_jax.data.polygon_area import has_area_inside

_LEAST_POINTS = 3
# Pixels from the corner of an image: images have fewer, and masks are drawn along the whole of an
# outline, whatever of it lies outside.
MOST_PIXELS = 1_000_000
_LARGEST_AREA = MOST_PIXELS**2
# Of compressed run lengths: five bits each, more than any number of pixels needs.
_MOST_CHARACTERS = 13
# Pixels: x and width of a box are often rounded to hundredths, and their sum may end that far out.
_ROUNDING = 0.02
_LIMIT = f"at most {MOST_PIXELS:,} from 0"
_SHOWN_LETTERS = 80


def find_box_fault(box: Any, area: Any) -> str:
    """Return what is wrong with a bbox or an area, or ""."""
    if not isinstance(box, list) or len(box) != 4 or not _are_finite(box):
        return f"its bbox {_shown(box)} is not four finite numbers, x y width height, {_LIMIT}"
    if not _are_finite([area], most=_LARGEST_AREA):
        return f"its area {_shown(area)} is no finite number up to {_LARGEST_AREA:,}"
    return ""


def find_image_fault(image: Mapping[str, Any]) -> str:
    """Return what is wrong with an image that has an id, or ""."""
    sides = image["height"], image["width"]
    if not all(type(side) is int and 0 < side <= MOST_PIXELS for side in sides):
        return f"its height or width is no positive whole number up to {MOST_PIXELS:,}"
    try:
        is_name = bool(os.fsencode(image["file_name"]))
    except (TypeError, UnicodeEncodeError):
        is_name = False
    return "" if is_name else f"its file_name {_shown(image['file_name'])} is no name"


def find_category_fault(category: Mapping[str, Any]) -> str:
    """Return what is wrong with a category that has an id, or ""."""
    name = category["name"]
    return "" if type(name) in (str, int) else f"its name {_shown(name)} is no text"


def is_id(value: Any) -> TypeGuard[int]:
    """Tell whether a value is a whole number of at most 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_box_usable(
    box: Sequence[int | float], area: int | float, *, height: int, width: int
) -> bool:
    """Tell whether a box has a pixel of its image, as the reference asks.

    Args:
      box: x, y, width and height.
      area: that the annotation states.
      height: of the image, in pixels.
      width: of the image, in pixels.
    """
    x, y, box_width, box_height = box
    seen_width = min(x + box_width, width) - max(x, 0)
    seen_height = min(y + box_height, height) - max(y, 0)
    return min(seen_width, seen_height, area) > 0 and min(box_width, box_height) >= 1


def reaches_outside(box: Sequence[int | float], *, height: int, width: int) -> bool:
    """Tell whether a part of a box lies outside its image; arguments are ``is_box_usable``'s."""
    x, y, box_width, box_height = box
    beyond = max(-x, -y, x + box_width - width, y + box_height - height)
    return beyond > _ROUNDING


def is_mask_usable(segmentation: Any, *, height: int, width: int) -> bool:
    """Tell whether a segmentation without a fault has an area within its image.

    One of several polygons is enough. Arguments are those of ``find_segmentation_fault``.
    """
    if isinstance(segmentation, list):
        return any(has_area_inside(one, height=height, width=width) for one in segmentation)
    counts = segmentation["counts"]
    runs = _unpack_counts(counts) if isinstance(counts, str) else counts
    # Every other run is of pixels inside.
    return any(itertools.islice(runs, 1, None, 2))


def find_segmentation_fault(segmentation: Any, *, height: int, width: int) -> str:
    """Return what is wrong with the segmentation of an annotation, or "".

    Args:
      segmentation: as the file holds it.
      height: of the image, in pixels.
      width: of the image, in pixels.
    """
    if isinstance(segmentation, list):
        return _find_polygon_fault(segmentation)
    if isinstance(segmentation, Mapping) and {"size", "counts"} <= segmentation.keys():
        return _find_run_fault(segmentation, height, width)
    return "its segmentation is neither polygons nor run lengths"


def _find_polygon_fault(polygons: list[Any]) -> str:
    if not polygons:
        return "its segmentation has no polygon"
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2 or not _are_finite(polygon):
            return f"a polygon is no list of finite numbers, x y x y ..., {_LIMIT}"
        if len(polygon) < 2 * _LEAST_POINTS:
            return f"a polygon has {len(polygon) // 2} points, fewer than {_LEAST_POINTS}"
    return ""


def _find_run_fault(runs: Mapping[str, Any], height: int, width: int) -> str:
    size = runs["size"]
    if size != [height, width] or not all(type(side) is int for side in size):
        return f"its run lengths have the size {_shown(size)}, the image [{height}, {width}]"
    counts = runs["counts"]
    if isinstance(counts, str):
        with contextlib.suppress(ValueError):
            counts = list(_unpack_counts(counts))
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        return "its run lengths are neither a list of whole numbers nor compressed text"
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        return f"its run lengths are {sum(counts):,} pixels long, the image {height * width:,}"
    return ""


def _unpack_counts(text: str) -> Iterator[int]:
    """Return the run lengths of COCO's compressed text, one after the other.

    Five bits a character, the lowest first, 32 where another one follows; from the fourth number
    on a run is stated by its difference to the one before the last.

    Raises:
      ValueError: a character is none of these, or a number is too long or without its end.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift == 5 * _MOST_CHARACTERS:
            raise ValueError("no compressed text")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        yield counts[-1]
        number, shift = 0, 0
    if shift:
        raise ValueError("no compressed text")


def _are_finite(numbers: list[Any], *, most: int = MOST_PIXELS) -> bool:
    return all(type(number) in (int, float) and -most <= number <= most for number in numbers)


def _shown(value: Any) -> str:
    """Return a value as a message has it, cut where it is long."""
    return textwrap.shorten(readable(repr(value)), _SHOWN_LETTERS, placeholder="...")
