"""Which boxes stand for which ground truth, and which of them are trained on.

Ground truth is padded to a fixed number of boxes, and a mask says which are any. The rules are
those of mmdetection 2.x: its assigner by the largest overlap, and its random sampler.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lska_jax.ops.boxes import iou_matrix

BACKGROUND, NEITHER = 0, -1


class Overlaps(NamedTuple):
    """From which overlaps on a box is an object, or is background.

    Attributes:
      object_from: least overlap of an object.
      background_below: overlaps of background are below it.
      best_from: least overlap at which the best boxes of an object are its own in any case.
    """

    object_from: float
    background_below: float
    best_from: float


def assign(
    boxes: Float[Array, "boxes 4"],
    truth: Float[Array, "truths 4"],
    *,
    is_truth: Bool[Array, " truths"],
    is_box: Bool[Array, " boxes"],
    overlaps: Overlaps,
) -> Int[Array, " boxes"]:
    """Return for every box the number of its object from 1 on, BACKGROUND, or NEITHER.

    The object is that of the largest overlap, the first among equals. Every object then takes the
    boxes that overlap it most, all of them if several do exactly alike, and a later object takes
    them from an earlier one. An object that touches no box may overlap all of them best, by 0.

    Args:
      boxes: (N, 4), anchors or proposals.
      truth: (M, 4), ground truth.
      is_truth: (M,) which rows of it are boxes.
      is_box: (N,) which boxes count; others are NEITHER.
      overlaps: the bounds.
    """
    counted = is_truth[:, None] & is_box[None]
    # Computed once, since it is compared with its own maximum: without the barrier the compiler
    # may compute it twice, and round differently.
    ious = lax.optimization_barrier(jnp.where(counted, iou_matrix(truth, boxes), -1.0))
    if not truth.shape[0]:
        return jnp.where(is_box, BACKGROUND, NEITHER)
    largest = jnp.max(ious, axis=0)
    first = jnp.argmax(ious, axis=0).astype(jnp.int32)
    # Without any truth the largest overlap is -1, and everything is background.
    assigned = jnp.where(largest < overlaps.background_below, BACKGROUND, NEITHER)
    assigned = jnp.where(largest >= overlaps.object_from, first + 1, assigned)
    best = jnp.max(ious, axis=1)
    takes = (ious == best[:, None]) & (best >= overlaps.best_from)[:, None] & counted
    numbers = jnp.arange(1, truth.shape[0] + 1, dtype=jnp.int32)
    last = jnp.max(jnp.where(takes, numbers[:, None], 0), axis=0)
    return jnp.where(is_box, jnp.where(last > 0, last, assigned), NEITHER)


class Sample(NamedTuple):
    """Boxes that are trained on: objects first, then background.

    Attributes:
      indices: (total,) int32 places among the boxes; 0 where there is none.
      is_object: (total,) which entries are objects.
      is_background: (total,) which entries are background; what is neither counts nothing.
    """

    indices: Int[Array, " total"]
    is_object: Bool[Array, " total"]
    is_background: Bool[Array, " total"]


def sample(
    assigned: Int[Array, " boxes"],
    *,
    total: int,
    most_objects: int,
    key: jax.Array | None = None,
) -> Sample:
    """Choose boxes to train on: objects up to a limit, then background up to the total.

    Args:
      assigned: (N,) from ``assign``.
      total: how many at most.
      most_objects: how many of them may be objects.
      key: a PRNG key; None takes the first ones in their order.
    """
    count = assigned.shape[0]
    if key is None:
        ranks = jnp.arange(count, 0, -1, dtype=jnp.float32)
    else:
        ranks = jax.random.uniform(key, (count,), jnp.float32, minval=0.5)
    objects, is_object = _first(assigned > BACKGROUND, ranks, most_objects)
    others, is_background = _first(assigned == BACKGROUND, ranks, total)
    room = total - jnp.sum(is_object, dtype=jnp.int32)
    is_background &= jnp.arange(total, dtype=jnp.int32) < room
    # As many places as there are boxes to fill them: background moves up to the objects.
    objects_found = jnp.sum(is_object, dtype=jnp.int32)
    place = jnp.arange(total, dtype=jnp.int32)
    from_objects = place < objects_found
    of_objects = jnp.minimum(place, most_objects - 1)
    of_others = jnp.clip(place - objects_found, 0, total - 1)
    indices = jnp.where(from_objects, objects[of_objects], others[of_others])
    is_background = ~from_objects & is_background[of_others]
    is_used = from_objects | is_background
    return Sample(jnp.where(is_used, indices, 0), from_objects, is_background)


def _first(is_candidate: Array, ranks: Array, limit: int) -> tuple[Array, Array]:
    """Return the places of the candidates of highest rank, and which of them are any."""
    padding = max(limit - ranks.shape[0], 0)
    scores = jnp.pad(jnp.where(is_candidate, ranks, 0.0), (0, padding))
    found, places = lax.top_k(scores, limit)
    return places.astype(jnp.int32), found > 0
