"""The box of a random resized crop (Szegedy et al., arXiv 1409.4842), drawn as torchvision does."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

_CROP_ATTEMPTS = 10


class Box(NamedTuple):
    """A crop rectangle in pixels: the upper left corner and the size."""

    top: int
    left: int
    height: int
    width: int


def draw_crop(
    height: int,
    width: int,
    *,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw the box of a random resized crop.

    Area uniform in `scale`, aspect ratio (width / height) log-uniform in `ratio`, position uniform.
    After ten boxes that do not fit into the image, the largest centred box with an allowed aspect
    ratio is taken.

    Args:
      height: of the image, in pixels.
      width: of the image, in pixels.
      rng: the source of the random numbers.
      scale: bounds of the area, as fractions of the image's.
      ratio: bounds of width / height.
    """
    log_ratio = (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        # A tiny image can round a side to zero, which the reference's resize would refuse.
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return Box(top, left, box_height, box_width)
    return _largest_centred_box(height, width, ratio)


def _largest_centred_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        box_width = max(1, round(height * ratio[1]))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
