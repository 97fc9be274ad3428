"""Images with objects as arrays of fixed shapes, what a detector's batch is made of.

Names and shapes, with H and W the canvas and N ``max_objects``:

| Field | | |
|---|---|---|
| ``image`` | (H, W, 3) uint8 | 0 beyond ``size``; normalise, then set that to 0 once more |
| ``size`` | (2,) int32 | height and width of what is inside the canvas |
| ``original_size`` | (2,) int32 | as it is stored; ``size / original_size`` is the scale |
| ``boxes`` | (N, 4) float32 | x1 y1 x2 y2 on the canvas |
| ``labels`` | (N,) int32 | |
| ``box_mask`` | (N,) bool | which rows are objects; the others hold 0 |
| ``masks`` | (N, H, W / 8) uint8 | eight pixels a byte, as ``numpy.packbits`` puts them |
| ``position`` | () int32 | of the example in its source |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lska_jax.data.decode import MAX_PIXELS, upright_pixels_of
from lska_jax.data.examples import Field, Fields
from lska_jax.data.scene_moves import Move, draw_move, fit_move, has_area, pad_image, pad_map
from lska_jax.data.scenes import ObjectImage
from lska_jax.data.sources import BrokenImage

_PIXELS_PER_BYTE = 8


class ObjectReader:
    """Reads images with objects: resizes, and in training crops and flips them; see ``Reader``.

    Args:
      canvas: height and width of the fields; the width is a multiple of 8.
      bounds: the most pixels of the longer and of the shorter side of a resized image. In an
        evaluation they must fit into the canvas.
      max_objects: rows for objects; an image with more is broken.
      use_masks: whether masks are read.
      flip_prob: in training, how likely a flip is.
      jitter: in training, the range of a factor on the bounds; what outgrows the canvas is cropped.
      max_pixels: encoded images of more pixels count as broken.

    Raises:
      ValueError: the width is no multiple of 8, or there is no row.
    """

    def __init__(
        self,
        *,
        canvas: tuple[int, int],
        bounds: tuple[int, int],
        max_objects: int,
        use_masks: bool = False,
        flip_prob: float = 0.5,
        jitter: tuple[float, float] = (1.0, 1.0),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        height, width = canvas
        if width % _PIXELS_PER_BYTE or max_objects < 1:
            raise ValueError(
                f"A canvas of {height}x{width} pixels for {max_objects} objects: give a width that "
                "is a multiple of 8, and at least one object."
            )
        self.fields: Fields = {
            "image": Field((height, width, 3), np.uint8),
            "size": Field((2,), np.int32, fill=1),
            "original_size": Field((2,), np.int32, fill=1),
            "boxes": Field((max_objects, 4), np.float32),
            "labels": Field((max_objects,), np.int32),
            "box_mask": Field((max_objects,), np.bool_),
            "position": Field((), np.int32, fill=-1),
        }
        if use_masks:
            packed = (max_objects, height, width // _PIXELS_PER_BYTE)
            self.fields = {**self.fields, "masks": Field(packed, np.uint8)}
        self._canvas, self._bounds, self._max_objects = canvas, bounds, max_objects
        self._flip_prob, self._jitter, self._max_pixels = flip_prob, jitter, max_pixels

    def __call__(self, example: ObjectImage, *rng: np.random.Generator) -> Mapping[str, Any]:
        """Return the fields of the module's table.

        Raises:
          BrokenImage: the image cannot be decoded, is too large for the canvas, has another size
            than its masks, or has more objects than there are rows.
        """
        pixels = upright_pixels_of(example.image, max_pixels=self._max_pixels)
        original = pixels.shape[:2]
        if original != example.size:
            raise BrokenImage(
                f"it has {original[0]} x {original[1]} rows and columns, its annotations are for "
                f"{example.size[0]} x {example.size[1]}"
            )
        move = self._choose_move(original, *rng)
        boxes = move.boxes(example.boxes)
        kept = np.flatnonzero(has_area(boxes))
        count = len(kept)
        if count > self._max_objects:
            raise BrokenImage(f"{count} objects are more than the limit of {self._max_objects}")
        fields: dict[str, Any] = {
            "image": pad_image(move.image(pixels), self._canvas),
            "size": np.array(move.size, np.int32),
            "original_size": np.array(original, np.int32),
            "position": example.position,
        }
        for name in ("boxes", "labels", "box_mask"):
            fields[name] = self.fields[name].blank()
        fields["boxes"][:count] = boxes[kept]
        fields["labels"][:count] = example.labels[kept]
        fields["box_mask"][:count] = True
        if "masks" in self.fields:
            fields["masks"] = self._pack(example, move, kept)
        return fields

    def _choose_move(self, original: tuple[int, int], *rng: np.random.Generator) -> Move:
        if rng:
            return draw_move(
                original,
                rng[0],
                bounds=self._bounds,
                canvas=self._canvas,
                jitter=self._jitter,
                flip_prob=self._flip_prob,
            )
        move = fit_move(original, bounds=self._bounds)
        if move.size[0] > self._canvas[0] or move.size[1] > self._canvas[1]:
            raise BrokenImage(
                f"resized to {move.size[0]} x {move.size[1]} rows and columns, it does not fit "
                f"into {self._canvas[0]} x {self._canvas[1]}"
            )
        return move

    def _pack(self, example: ObjectImage, move: Move, kept: np.ndarray) -> np.ndarray:
        if example.masks is None:
            raise ValueError(
                "The source was opened without masks, and the reader is asked for them."
            )
        packed = self.fields["masks"].blank()
        moved = pad_map(move.maps(example.masks[kept]), self._canvas)
        packed[: len(kept)] = np.packbits(moved, axis=-1)
        return packed
