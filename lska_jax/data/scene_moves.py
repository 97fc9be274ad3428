"""Resize, crop, flip and pad a scene: its image, boxes, masks and label map alike.

A ``Move`` says where every pixel goes; what it draws from is another function's business. The
order is that of the reference: resize, crop, flip, pad. Padding therefore lies right and below in a
flipped image too, and a flipped box is measured from the right edge of what is inside it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from lska_jax.data.plain_resize import fit_size, resize_bilinear, resize_nearest
from lska_jax.data.scenes import IGNORED_LABEL

# Attempts at a window in which no class fills too much.
_CROP_ATTEMPTS = 11


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """What becomes of a scene of one size.

    Attributes:
      source: height and width of the scene.
      resized: height and width of the whole scene once it is resized.
      top: first row of the resized scene that is kept.
      left: first column that is kept.
      size: height and width that are kept.
      is_flipped: whether what is kept changes left and right.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    top: int = 0
    left: int = 0
    is_flipped: bool = False

    @property
    def _rows(self) -> slice:
        return slice(self.top, self.top + self.size[0])

    @property
    def _columns(self) -> slice:
        return slice(self.left, self.left + self.size[1])

    def image(
        self, pixels: UInt8[np.ndarray, "height width 3"]
    ) -> UInt8[np.ndarray, "rows columns 3"]:
        """Return the moved image, interpolated between pixels."""
        moved = resize_bilinear(pixels, self.resized, rows=self._rows, columns=self._columns)
        return moved[:, ::-1] if self.is_flipped else moved

    def maps(
        self, maps: Shaped[np.ndarray, "*maps height width"]
    ) -> Shaped[np.ndarray, "*maps rows columns"]:
        """Return moved masks or a moved label map; each pixel takes the nearest value."""
        moved = resize_nearest(maps, self.resized, rows=self._rows, columns=self._columns)
        return moved[..., ::-1] if self.is_flipped else moved

    def boxes(self, boxes: Float32[np.ndarray, "boxes 4"]) -> Float32[np.ndarray, "boxes 4"]:
        """Return moved boxes, cut off at the edges; those outside have no width or no height."""
        scale = np.divide(self.resized[::-1], self.source[::-1], dtype=np.float32)
        moved = boxes * np.tile(scale, 2)[None]
        moved -= np.tile(np.array([self.left, self.top], np.float32), 2)[None]
        if self.is_flipped:
            moved[:, [0, 2]] = np.float32(self.size[1]) - moved[:, [2, 0]]
        return np.clip(moved, 0, np.tile(np.array(self.size[::-1], np.float32), 2)[None])


def draw_move(
    source: tuple[int, int],
    rng: np.random.Generator,
    *,
    bounds: tuple[int, int],
    canvas: tuple[int, int],
    jitter: tuple[float, float] = (1.0, 1.0),
    flip_prob: float = 0.5,
) -> Move:
    """Draw a resize, a window and a flip.

    Args:
      source: height and width of the scene.
      rng: the source of the random numbers.
      bounds: the most pixels of the longer and of the shorter side; see ``fit_size``.
      canvas: height and width that the result has to fit into; what is larger is cropped.
      jitter: range of a factor on the bounds, uniform in it.
      flip_prob: how likely a flip is.
    """
    factor = rng.uniform(*jitter) if jitter[0] < jitter[1] else jitter[0]
    long_side, short_side = (max(1, int(side * factor)) for side in bounds)
    resized = fit_size(*source, long_side=long_side, short_side=short_side)
    resized = max(1, resized[0]), max(1, resized[1])
    size = min(resized[0], canvas[0]), min(resized[1], canvas[1])
    top, left = (
        int(rng.integers(whole - kept + 1)) for whole, kept in zip(resized, size, strict=True)
    )
    is_flipped = bool(rng.random() < flip_prob)
    return Move(
        source=source, resized=resized, size=size, top=top, left=left, is_flipped=is_flipped
    )


def fit_move(source: tuple[int, int], *, bounds: tuple[int, int]) -> Move:
    """Return the resize of an evaluation, without a crop or a flip; see ``draw_move``."""
    resized = fit_size(*source, long_side=bounds[0], short_side=bounds[1])
    resized = max(1, resized[0]), max(1, resized[1])
    return Move(source=source, resized=resized, size=resized)


def draw_mixed_window(
    move: Move,
    label_map: UInt8[np.ndarray, "height width"],
    rng: np.random.Generator,
    *,
    most: float = 0.75,
) -> Move:
    """Draw the window of a move anew until no class fills it.

    A window will do where it shows more than one class and none has ``most`` or more of its
    labelled pixels; the last of eleven is taken in any case.

    Args:
      move: gives the resize, the size of the window and the flip.
      label_map: of the scene as it is, before the move.
      rng: the source of the random numbers.
      most: the part of the pixels that a class may have.
    """
    rows, columns = (whole - kept for whole, kept in zip(move.resized, move.size, strict=True))
    for _ in range(_CROP_ATTEMPTS):
        top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
        move = dataclasses.replace(move, top=top, left=left)
        counts = np.bincount(move.maps(label_map).ravel(), minlength=256)
        counts[IGNORED_LABEL] = 0
        if (counts > 0).sum() > 1 and counts.max() < most * counts.sum():
            break
    return move


def pad_map(
    maps: Shaped[np.ndarray, "*maps rows columns"],
    size: tuple[int, int],
    *,
    fill: int | bool = 0,
) -> Shaped[np.ndarray, "*maps height width"]:
    """Return masks or a label map at a larger size, filled below and on the right."""
    padded = np.full((*maps.shape[:-2], *size), fill, maps.dtype)
    padded[..., : maps.shape[-2], : maps.shape[-1]] = maps
    return padded


def pad_image(
    pixels: UInt8[np.ndarray, "rows columns 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image at a larger size, zero below and on the right.

    The reference pads with zero after normalisation; whoever normalises sets it to zero once more.
    """
    padded = np.zeros((*size, 3), np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


def has_area(boxes: Float32[np.ndarray, "boxes 4"]) -> Bool[np.ndarray, " boxes"]:
    """Tell which boxes have a width and a height."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
