"""Boxes as corners, x1 y1 x2 y2 in pixels: areas, overlaps, and deltas to other boxes.

Width is x2 - x1, without a pixel added. Everything is float32, whatever a network computes in.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Of a side of a decoded box over that of its anchor, as a logarithm, in both directions.
MOST_LOG_RATIO = math.log(1000 / 16)
# Under it the overlap of two empty boxes is 0, not 0 / 0.
LEAST_UNION = 1e-6


def box_areas(boxes: Float[Array, "*boxes 4"]) -> Float[Array, "*boxes"]:
    """Return widths times heights, 0 of a box whose corners are in the wrong order."""
    return _product(boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1])


def intersections(
    boxes: Float[Array, "boxes 4"], others: Float[Array, "others 4"]
) -> Float[Array, "boxes others"]:
    """Return the area that each box has in common with each other one."""
    low = jnp.maximum(boxes[:, None, :2], others[None, :, :2])
    high = jnp.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = jnp.maximum(high - low, 0.0)
    return _product(sides[..., 0], sides[..., 1])


def iou_matrix(
    boxes: Float[Array, "boxes 4"], others: Float[Array, "others 4"]
) -> Float[Array, "boxes others"]:
    """Return intersection over union of each box with each other one, in [0, 1].

    Bit for bit what the formula gives in NumPy, so that overlaps may be compared for equality.

    Args:
      boxes: (N, 4).
      others: (M, 4).

    Returns:
      (N, M) float32; 0 of two empty boxes.
    """
    boxes, others = boxes.astype(jnp.float32), others.astype(jnp.float32)
    common = intersections(boxes, others)
    union = box_areas(boxes)[:, None] + box_areas(others)[None] - common
    return common / jnp.maximum(union, LEAST_UNION)


def _product(widths: Array, heights: Array) -> Array:
    # The maximum also keeps the compiler from merging the product and the sum behind it into one
    # operation with one rounding, whose last bit would differ.
    return jnp.maximum(widths * heights, 0.0)


def encode_boxes(
    anchors: Float[Array, "*boxes 4"],
    boxes: Float[Array, "*boxes 4"],
    *,
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*boxes 4"]:
    """Return the deltas that lead from anchors to boxes.

        dx = (x - xa) / wa    dy = (y - ya) / ha    dw = log(w / wa)    dh = log(h / ha)

    of centres and sides, over ``stds``.

    Args:
      anchors: (..., 4) with sides above 0.
      boxes: (..., 4) with sides above 0; what is not has infinite deltas.
      stds: of the four deltas.
    """
    anchor_centres, anchor_sides = _centres_and_sides(anchors)
    centres, sides = _centres_and_sides(boxes)
    shifts = (centres - anchor_centres) / anchor_sides
    return jnp.concatenate([shifts, jnp.log(sides / anchor_sides)], -1) / _row(stds, boxes.ndim)


def decode_boxes(
    anchors: Float[Array, "*boxes 4"],
    deltas: Float[Array, "*boxes 4"],
    *,
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*boxes 4"]:
    """Return the boxes that deltas lead to, see ``encode_boxes``.

    A side is at most 1000 / 16 times that of the anchor, and at least the inverse of that.

    Args:
      anchors: (..., 4).
      deltas: (..., 4).
      stds: of the four deltas.
    """
    centres, sides = _centres_and_sides(anchors)
    scaled = deltas.astype(jnp.float32) * _row(stds, deltas.ndim)
    log_ratios = jnp.clip(scaled[..., 2:], -MOST_LOG_RATIO, MOST_LOG_RATIO)
    centres = centres + sides * scaled[..., :2]
    halves = 0.5 * sides * jnp.exp(log_ratios)
    return jnp.concatenate([centres - halves, centres + halves], -1)


def clip_boxes(
    boxes: Float[Array, "*boxes 4"], height: jax.typing.ArrayLike, width: jax.typing.ArrayLike
) -> Float[Array, "*boxes 4"]:
    """Move corners that lie outside an image to its border.

    Args:
      boxes: (..., 4).
      height: of the image, in pixels; a number, or an array () of one.
      width: likewise.
    """
    height, width = jnp.asarray(height, jnp.float32), jnp.asarray(width, jnp.float32)
    limits = jnp.stack([width, height, width, height])
    return jnp.clip(boxes, 0.0, limits.reshape((1,) * (boxes.ndim - 1) + (4,)))


def _centres_and_sides(boxes: Array) -> tuple[Array, Array]:
    boxes = boxes.astype(jnp.float32)
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low


def _row(values: Sequence[float], rank: int) -> Array:
    return jnp.asarray(values, jnp.float32).reshape((1,) * (rank - 1) + (4,))
