"""Whether a polygon has an area within its image, without drawing it.

A point is inside where a line from it meets the outline an odd number of times, which is how COCO
fills polygons: those that cross themselves have an area too.
"""

from __future__ import annotations

from operator import mul

import numpy as np

# In pixels. A shoelace sum is that far from 0 for a reason other than rounding; smaller ones, which
# belong to slivers and to polygons that cross themselves, are looked at row by row.
_CERTAIN_AREA = 1.0
_LEAST_AREA = 1e-6
# Where a row is looked at between two others: no simple fraction, at which edges often cross.
_BETWEEN = 0.382


def has_area_inside(polygon: list[float], *, height: int, width: int) -> bool:
    """Tell whether a polygon has an area within its image.

    Args:
      polygon: x y x y ..., in pixels, finite.
      height: of the image, in pixels.
      width: of the image, in pixels.
    """
    x, y = polygon[::2], polygon[1::2]
    left, right, top, bottom = min(x), max(x), min(y), max(y)
    if min(right, width) <= max(left, 0) or min(bottom, height) <= max(top, 0):
        return False
    if left >= 0 and right <= width and top >= 0 and bottom <= height:
        shoelace = sum(map(mul, x, y[1:] + y[:1])) - sum(map(mul, y, x[1:] + x[:1]))
        if abs(shoelace) > 2 * _CERTAIN_AREA:
            return True
    return _has_filled_row(np.array(x, np.float64), np.array(y, np.float64), height, width)


def _has_filled_row(x: np.ndarray, y: np.ndarray, height: int, width: int) -> bool:
    """Tell whether rows through the image, one between any two corners, have parts inside."""
    x_steps, y_steps = np.roll(x, -1) - x, np.roll(y, -1) - y
    bounds = [np.array([0, height], np.float64), y]
    # What is inside may also begin and end where an edge crosses a side of the image.
    slanted = x_steps != 0
    for side in (0, width):
        shares = (side - x[slanted]) / x_steps[slanted]
        is_met = (shares >= 0) & (shares <= 1)
        bounds.append((y[slanted] + shares * y_steps[slanted])[is_met])
    rows = np.unique(np.clip(np.concatenate(bounds), 0, height))
    area = 0.0
    for top, bottom in zip(rows[:-1], rows[1:], strict=True):
        row = top + _BETWEEN * (bottom - top)
        is_met = (y <= row) != (y + y_steps <= row)
        met = x[is_met] + (row - y[is_met]) / y_steps[is_met] * x_steps[is_met]
        lengths = np.diff(np.clip(np.sort(met), 0, width).reshape(-1, 2))
        area += float(lengths.sum()) * float(bottom - top)
        if area > _LEAST_AREA:
            return True
    return False
