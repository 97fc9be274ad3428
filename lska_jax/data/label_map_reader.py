"""Images with a class a pixel as arrays of fixed shapes, what a segmentor's batch is made of.

Names and shapes, with H and W the canvas:

| Field | | |
|---|---|---|
| ``image`` | (H, W, 3) uint8 | 0 beyond ``size``; normalise, then set that to 0 once more |
| ``size`` | (2,) int32 | height and width of what is inside the canvas |
| ``label_map`` | training: (H, W), evaluation: the canvas of the labels, uint8 | 255 is no class |
| ``original_size`` | (2,) int32 | evaluation: of the image and its labels as they are stored |
| ``position`` | () int32 | evaluation: of the example in its source |

In an evaluation labels keep the size that they are stored in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lska_jax.data.decode import MAX_PIXELS, upright_pixels_of
from lska_jax.data.examples import Field, Fields
from lska_jax.data.scene_moves import (
    Move,
    draw_mixed_window,
    draw_move,
    fit_move,
    pad_image,
    pad_map,
)
from lska_jax.data.scenes import IGNORED_LABEL, PixelLabels
from lska_jax.data.sources import BrokenImage


class TrainLabelMaps:
    """Resizes by a random factor, crops a window of mixed classes and flips; see ``Reader``.

    Args:
      canvas: height and width of the crop.
      bounds: the most pixels of the longer and of the shorter side of a resized image, before the
        factor.
      jitter: range of the factor.
      most: the part of a crop's pixels that one class may have.
      flip_prob: how likely a flip is.
      max_pixels: encoded images of more pixels count as broken.
    """

    def __init__(
        self,
        *,
        canvas: tuple[int, int],
        bounds: tuple[int, int],
        jitter: tuple[float, float],
        most: float = 0.75,
        flip_prob: float = 0.5,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.fields: Fields = {
            "image": Field((*canvas, 3), np.uint8),
            "size": Field((2,), np.int32, fill=1),
            "label_map": Field(canvas, np.uint8, fill=IGNORED_LABEL),
        }
        self._canvas, self._bounds, self._jitter = canvas, bounds, jitter
        self._most, self._flip_prob, self._max_pixels = most, flip_prob, max_pixels

    def __call__(self, example: PixelLabels, *rng: np.random.Generator) -> Mapping[str, Any]:
        """Return the fields of the module's table."""
        pixels = decoded(example, self._max_pixels)
        move = draw_move(
            example.label_map.shape,
            rng[0],
            bounds=self._bounds,
            canvas=self._canvas,
            jitter=self._jitter,
            flip_prob=self._flip_prob,
        )
        if move.size != move.resized and self._most < 1:
            move = draw_mixed_window(move, example.label_map, rng[0], most=self._most)
        return {
            "image": pad_image(move.image(pixels), self._canvas),
            "size": np.array(move.size, np.int32),
            "label_map": pad_map(move.maps(example.label_map), self._canvas, fill=IGNORED_LABEL),
        }


class EvalLabelMaps:
    """Resizes images to the bounds and leaves labels as they are; see ``Reader``.

    Args:
      canvas: height and width that images are padded to; what is larger is shrunk to fit into it.
      label_canvas: height and width that labels are padded to.
      bounds: the most pixels of the longer and of the shorter side of a resized image.
      max_pixels: encoded images of more pixels count as broken.
    """

    def __init__(
        self,
        *,
        canvas: tuple[int, int],
        label_canvas: tuple[int, int],
        bounds: tuple[int, int],
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.fields: Fields = {
            "image": Field((*canvas, 3), np.uint8),
            "size": Field((2,), np.int32, fill=1),
            "label_map": Field(label_canvas, np.uint8, fill=IGNORED_LABEL),
            "original_size": Field((2,), np.int32, fill=1),
            "position": Field((), np.int32, fill=-1),
        }
        self._canvas, self._label_canvas = canvas, label_canvas
        self._bounds, self._max_pixels = bounds, max_pixels

    def __call__(self, example: PixelLabels, *rng: np.random.Generator) -> Mapping[str, Any]:
        """Return the fields of the module's table."""
        del rng
        pixels = decoded(example, self._max_pixels)
        original = example.label_map.shape
        if original[0] > self._label_canvas[0] or original[1] > self._label_canvas[1]:
            raise BrokenImage(
                f"its {original[0]} x {original[1]} rows and columns do not fit into the "
                f"{self._label_canvas[0]} x {self._label_canvas[1]} of segmentation.label_canvas"
            )
        move = fit_into(original, bounds=self._bounds, canvas=self._canvas)
        return {
            "image": pad_image(move.image(pixels), self._canvas),
            "size": np.array(move.size, np.int32),
            "label_map": pad_map(example.label_map, self._label_canvas, fill=IGNORED_LABEL),
            "original_size": np.array(original, np.int32),
            "position": example.position,
        }


def fit_into(
    original: tuple[int, ...], *, bounds: tuple[int, int], canvas: tuple[int, int]
) -> Move:
    """Return the resize to bounds, or a smaller one where a canvas asks for it."""
    height, width = original
    move = fit_move((height, width), bounds=bounds)
    if move.size[0] <= canvas[0] and move.size[1] <= canvas[1]:
        return move
    factor = min(canvas[0] / height, canvas[1] / width)
    size = max(1, int(height * factor)), max(1, int(width * factor))
    return Move(source=(height, width), resized=size, size=size)


def decoded(example: PixelLabels, max_pixels: int) -> np.ndarray:
    """Return the pixels of an example.

    Raises:
      BrokenImage: it cannot be decoded, or is of another size than its labels.
    """
    pixels = upright_pixels_of(example.image, max_pixels=max_pixels)
    if pixels.shape[:2] != example.label_map.shape:
        size, labels = pixels.shape[:2], example.label_map.shape
        raise BrokenImage(
            f"it has {size[0]} x {size[1]} rows and columns, its label map {labels[0]} x "
            f"{labels[1]}"
        )
    return pixels
