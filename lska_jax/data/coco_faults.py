"""What can be wrong with one annotation of a COCO file, in words.

Faults refuse the file: nothing is trained on an annotation that cannot mean what it says. Boxes
without a pixel of their image are no faults: the reference leaves them out, and so does
``coco_file``, which says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_LEAST_POINTS = 3


def find_box_fault(box: Any, area: Any) -> str:
    """Return what is wrong with a bbox or an area, or ""."""
    if not isinstance(box, list) or len(box) != 4 or not _are_finite(box):
        return f"its bbox {box!r} is not four finite numbers, x y width height"
    return "" if _are_finite([area]) else f"its area {area!r} is no finite number"


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
            return "a polygon is no list of finite numbers, x y x y ..."
        if len(polygon) < 2 * _LEAST_POINTS:
            return f"a polygon has {len(polygon) // 2} points, fewer than {_LEAST_POINTS}"
    return ""


def _find_run_fault(runs: Mapping[str, Any], height: int, width: int) -> str:
    if runs["size"] != [height, width]:
        return f"its run lengths have the size {runs['size']}, the image [{height}, {width}]"
    counts = runs["counts"]
    if isinstance(counts, str):
        counts = _unpack_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        return "its run lengths are neither a list of whole numbers nor compressed text"
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        return f"its run lengths are {sum(counts):,} pixels long, the image {height * width:,}"
    return ""


def _unpack_counts(text: str) -> list[int] | None:
    """Return the run lengths of COCO's compressed text; None where it ends in the middle.

    Five bits a character, the lowest first, 32 where another one follows; from the third number on
    a run is stated by its difference to the one before the last.
    """
    counts: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    return counts if not shift else None


def _are_finite(numbers: list[Any]) -> bool:
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
