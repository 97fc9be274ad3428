"""Masks of boxes: pasted into images, and cut out of them as targets."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from lska_jax.ops.boxes import clip_boxes
from lska_jax.ops.roi_align import roi_align

# From which value on a pixel belongs to a mask.
INSIDE = 0.5


def paste_masks(masks: Any, boxes: Any, *, height: int, width: int) -> Any:
    """Return masks of boxes as maps of an image.

    The centre of each pixel is looked up in the mask, bilinearly, with zeros outside. The result
    is a product of matrices of hat functions, as in ``roi_align``.

    Args:
      masks: (N, side, side) float32, probabilities; an array of JAX or NumPy, as the result is.
      boxes: (N, 4) float32 corners in pixels of the image.
      height: of the image.
      width: of the image.

    Returns:
      (N, height, width) float32; at least ``INSIDE`` inside.
    """
    arrays = masks.__array_namespace__()
    side = masks.shape[-1]
    rows = _hats(arrays, boxes[:, 1], boxes[:, 3], length=height, side=side)
    columns = _hats(arrays, boxes[:, 0], boxes[:, 2], length=width, side=side)
    return rows @ masks @ arrays.matrix_transpose(columns)


def _hats(arrays: Any, low: Any, high: Any, *, length: int, side: int) -> Any:
    """Return (N, length, side): the share of every entry of a mask in every pixel."""
    kind = low.dtype
    pixels = arrays.arange(length, dtype=kind)[None] + arrays.asarray(0.5, dtype=kind)
    extent = (high - low)[:, None]
    is_empty = extent == 0
    extent = arrays.where(is_empty, arrays.ones_like(extent), extent)
    # Of a box without extent the middle of the mask is all there is.
    within = arrays.where(
        is_empty, arrays.asarray(0.5, dtype=kind), (pixels - low[:, None]) / extent
    )
    places = within * side - arrays.asarray(0.5, dtype=kind)
    entries = arrays.arange(side, dtype=kind)
    distance = arrays.abs(places[..., None] - entries[None, None])
    return arrays.maximum(1 - distance, arrays.zeros_like(distance))


def mask_targets(
    masks: UInt8[Array, "masks height bytes"],
    boxes: Float[Array, "boxes 4"],
    indices: Int[Array, " boxes"],
    *,
    side: int = 28,
) -> Bool[Array, "boxes side side"]:
    """Return what masks of an image are inside boxes, by RoIAlign and a threshold of one half.

    Args:
      masks: (M, H, W / 8) at the size of the image, eight pixels a byte as ``numpy.packbits`` has
        them.
      boxes: (R, 4), of which the part within the image counts.
      indices: (R,) the mask of each box.
      side: of the result.
    """

    def of_box(chosen: tuple[Array, Array]) -> Array:
        box, index = chosen
        # One mask at a time: all of them as pixels take up eight times as much.
        mask = jnp.unpackbits(lax.dynamic_index_in_dim(masks, index), axis=-1)
        pixels = mask.astype(jnp.float32)[..., None]
        return roi_align([pixels], box[None, None], strides=(1,), side=side)[0, 0, ..., 0]

    inside = clip_boxes(boxes.astype(jnp.float32), masks.shape[1], 8 * masks.shape[2])
    return lax.map(of_box, (inside, indices)) >= INSIDE


def each_mask_targets(
    masks: UInt8[Array, "batch masks height bytes"],
    boxes: Float[Array, "batch boxes 4"],
    indices: Int[Array, "batch boxes"],
    *,
    side: int = 28,
) -> Bool[Array, "batch boxes side side"]:
    """Return ``mask_targets`` of every image of a batch."""

    def of_image(masks: Array, boxes: Array, indices: Array) -> Array:
        return mask_targets(masks, boxes, indices, side=side)

    return jax.vmap(of_image)(masks, boxes, indices)
