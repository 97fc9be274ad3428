"""Polygons with and without an area in their image, and that agree with COCO's own drawing."""

import numpy as np
import pytest

from lska_jax.data.coco_masks import decode_mask
from lska_jax.data.polygon_area import has_area_inside

SQUARE = [5, 5, 9, 5, 9, 9, 5, 9]


def shifted(polygon: list[float], x: float, y: float) -> list[float]:
    return [number + (x, y)[place % 2] for place, number in enumerate(polygon)]


@pytest.mark.parametrize(
    ("polygon", "is_inside"),
    [
        (SQUARE, True),
        (SQUARE[:6], True),
        # A tenth of a pixel wide.
        ([5, 5, 5.1, 5, 5.1, 9, 5, 9], True),
        # Two triangles whose signed areas cancel each other.
        ([5, 5, 15, 15, 15, 5, 5, 15], True),
        ([5, 5, 5, 5, 5, 5], False),
        ([1, 1, 5, 5, 9, 9], False),
        ([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 17.7, 17.7], False),
        ([5, 5, 9, 5, 30, 5], False),
        ([5, 5, 5, 9, 5, 30], False),
        # Back the way it came, around a corner.
        ([5, 5, 15, 5, 15, 15, 15, 5], False),
        (shifted(SQUARE, 60, 0), False),
        (shifted(SQUARE, 0, -20), False),
        # To an edge, and across it.
        (shifted(SQUARE, -9, 0), False),
        (shifted(SQUARE, -8, 0), True),
        (shifted(SQUARE, 55, 35), False),
        (shifted(SQUARE, 54, 34), True),
        # Across a corner of the image's, beyond it and over it.
        ([-20, 5, 5, -20, -20, -20], False),
        ([-20, 25, 25, -20, -20, -20], True),
        # Around the image, which lies in a gap, and all over it.
        ([-9, -9, 70, -9, 70, 50, 65, 50, 65, -5, -5, -5, -5, 50, -9, 50], False),
        ([-9, -9, 70, -9, 70, 50, -9, 50], True),
    ],
)
def test_a_polygon_has_an_area_inside_or_none(polygon, is_inside):
    assert has_area_inside(polygon, height=40, width=60) == is_inside
    backwards = np.array(polygon).reshape(-1, 2)[::-1].ravel().tolist()
    assert has_area_inside(backwards, height=40, width=60) == is_inside


def test_no_polygon_that_fills_a_pixel_counts_as_empty():
    generator = np.random.default_rng(0)
    filled = 0
    for _ in range(200):
        corners = generator.uniform(-20, 50, (generator.integers(3, 7), 2)).ravel().tolist()
        mask = decode_mask([corners], height=20, width=30)
        filled += mask.any()
        assert has_area_inside(corners, height=20, width=30) or not mask.any()
    assert 50 < filled < 200
