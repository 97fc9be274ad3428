"""Non-maximum suppression: greedy, by class, of static shapes.

Boxes are visited by falling score; one is kept unless a kept one of its class overlaps it by more
than the threshold. Blocks of boxes are decided at once: those that a kept box of an earlier block
suppresses are out, and inside the block the rule is applied to all boxes over and over until
nothing changes, which takes as many rounds as the longest chain of boxes that decide about one
another. Later blocks are not looked at once there are enough boxes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lska_jax.ops.boxes import box_areas, intersections

BLOCK = 128


class Kept(NamedTuple):
    """What suppression leaves, by falling score.

    Attributes:
      indices: (max_outputs,) int32, places among the boxes; 0 where nothing is left.
      is_valid: (max_outputs,) whether an entry is a box.
    """

    indices: Int[Array, " outputs"]
    is_valid: Bool[Array, " outputs"]


class _State(NamedTuple):
    block: Array
    kept: Array
    boxes: Array
    labels: Array
    places: Array


def suppress(
    boxes: Float[Array, "boxes 4"],
    scores: Float[Array, " boxes"],
    *,
    threshold: float,
    max_outputs: int,
    labels: Int[Array, " boxes"] | None = None,
) -> Kept:
    """Return which boxes are left, as a greedy loop over all of them would.

    An overlap of exactly the threshold does not suppress, nor does that of two empty boxes, which
    is 0 / 0. Among equal scores the lower index is first.

    Args:
      boxes: (N, 4) corners.
      scores: (N,); -inf, or NaN, of entries that are no boxes.
      threshold: of intersection over union, above which a box is suppressed.
      max_outputs: how many are wanted.
      labels: (N,) classes; boxes of different ones leave each other alone. None is one class.
    """
    count = boxes.shape[0]
    if not count or not max_outputs:
        empty = jnp.zeros((max_outputs,), jnp.int32)
        return Kept(empty, jnp.zeros((max_outputs,), bool))
    labels = jnp.zeros((count,), jnp.int32) if labels is None else labels.astype(jnp.int32)
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores.astype(jnp.float32))
    # A sort puts -0 below 0, which are equal.
    scores = jnp.where(scores == 0, 0.0, scores)
    scores, order = lax.top_k(scores, count)
    side = min(BLOCK, count)
    blocks = -(-count // side)
    padding = blocks * side - count
    in_blocks = (
        jnp.pad(boxes.astype(jnp.float32)[order], ((0, padding), (0, 0))).reshape(blocks, side, 4),
        jnp.pad(labels[order], (0, padding)).reshape(blocks, side),
        jnp.pad(scores > -jnp.inf, (0, padding)).reshape(blocks, side),
    )
    is_used = jnp.any(in_blocks[2], axis=1)

    def is_unfinished(state: _State) -> Array:
        block = jnp.minimum(state.block, blocks - 1)
        return (state.block < blocks) & (state.kept < max_outputs) & is_used[block]

    def take_block(state: _State) -> _State:
        block_boxes, block_labels, is_box = (
            lax.dynamic_index_in_dim(array, state.block, keepdims=False) for array in in_blocks
        )
        is_kept = jnp.arange(max_outputs, dtype=jnp.int32) < state.kept
        by_kept = _overlaps(state.boxes, state.labels, block_boxes, block_labels, threshold)
        is_free = is_box & ~jnp.any(by_kept & is_kept[:, None], axis=0)
        among = _overlaps(block_boxes, block_labels, block_boxes, block_labels, threshold)
        stays = _stays(is_free, among & jnp.asarray(np.triu(np.ones((side, side), bool), 1)))
        ranks = state.kept + jnp.cumsum(stays, dtype=jnp.int32) - 1
        # What does not stay is written past the end, that is nowhere.
        slots = jnp.where(stays, ranks, max_outputs)
        places = state.block * side + jnp.arange(side, dtype=jnp.int32)
        return _State(
            state.block + 1,
            jnp.minimum(state.kept + jnp.sum(stays, dtype=jnp.int32), max_outputs),
            state.boxes.at[slots].set(block_boxes, mode="drop"),
            state.labels.at[slots].set(block_labels, mode="drop"),
            state.places.at[slots].set(places, mode="drop"),
        )

    zero = jnp.zeros((), jnp.int32)
    slots = jnp.zeros((max_outputs,), jnp.int32)
    state = _State(zero, zero, jnp.zeros((max_outputs, 4), jnp.float32), slots, slots)
    state = lax.while_loop(is_unfinished, take_block, state)
    is_valid = jnp.arange(max_outputs, dtype=jnp.int32) < state.kept
    return Kept(jnp.where(is_valid, order[state.places], 0), is_valid)


def _overlaps(
    boxes: Array, labels: Array, others: Array, other_labels: Array, threshold: float
) -> Array:
    """Return (boxes, others): whether two of one class overlap by more than the threshold."""
    common = intersections(boxes, others)
    union = box_areas(boxes)[:, None] + box_areas(others)[None] - common
    return (common / union > threshold) & (labels[:, None] == other_labels[None])


def _stays(is_free: Array, suppresses: Array) -> Array:
    """Return which boxes of a block stay.

    Args:
      is_free: (side,) whether no earlier block suppresses it.
      suppresses: (side, side) whether a box, should it stay, suppresses a later one.
    """

    def decide(state: tuple[Array, Array]) -> tuple[Array, Array]:
        stays, _ = state
        decided = is_free & ~jnp.any(suppresses & stays[:, None], axis=0)
        return decided, jnp.any(decided != stays)

    # After n rounds the first n boxes are decided: it ends.
    return lax.while_loop(lambda state: state[1], decide, (is_free, jnp.any(is_free)))[0]


def suppress_each(
    boxes: Float[Array, "batch boxes 4"],
    scores: Float[Array, "batch boxes"],
    *,
    threshold: float,
    max_outputs: int,
    labels: Int[Array, "batch boxes"] | None = None,
) -> Kept:
    """Return ``suppress`` of every image of a batch."""

    def of_image(boxes: Array, scores: Array, labels: Array | None) -> Kept:
        return suppress(boxes, scores, threshold=threshold, max_outputs=max_outputs, labels=labels)

    return jax.vmap(of_image)(boxes, scores, labels)
