"""Region proposals (arXiv 1506.01497): where there is an object, of whatever class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lska_jax.models.dense.anchors import Anchors, join_levels
from lska_jax.models.dense.assignment import Overlaps, Sample, sample
from lska_jax.models.dense.detector import (
    Truth,
    clip_to_images,
    encode_where,
    l1_sum,
    rows_of,
)
from lska_jax.nn.dense import Pointwise
from lska_jax.nn.initial_values import normal
from lska_jax.nn.layers import StridedConv
from lska_jax.ops.boxes import decode_boxes
from lska_jax.ops.losses import binary_cross_entropy
from lska_jax.ops.nms import suppress_each

OVERLAPS = Overlaps(object_from=0.7, background_below=0.3, best_from=0.3)
SCALES = (8.0,)
_SAMPLES = 256
_NMS_THRESHOLD = 0.7
_KERNEL_STD = 0.01


class Proposals(NamedTuple):
    """Boxes that may hold an object, by falling score.

    Attributes:
      boxes: (B, P, 4) in pixels of the canvas.
      scores: (B, P) in [0, 1].
      is_valid: (B, P) which rows are any.
      levels: (B, P) of the anchors that they come from.
    """

    boxes: Float[Array, "batch proposals 4"]
    scores: Float[Array, "batch proposals"]
    is_valid: Bool[Array, "batch proposals"]
    levels: Int[Array, "batch proposals"]


class ProposalHead(nnx.Module):
    """A 3x3 convolution with ReLU, and two 1x1 in float32; shared by all levels.

    Args:
      channels: of the maps.
      per_cell: anchors of a cell.
      dtype: compute dtype of the first convolution.
      rngs: source of the initial parameters.
    """

    def __init__(self, channels: int, per_cell: int, *, dtype: Any, rngs: nnx.Rngs):
        how: dict[str, Any] = {"kernel_init": normal(_KERNEL_STD), "rngs": rngs}
        self.conv = StridedConv(channels, channels, kernel_size=3, stride=1, dtype=dtype, **how)
        self.objects = Pointwise(channels, per_cell, **how)
        self.boxes = Pointwise(channels, 4 * per_cell, **how)

    def __call__(
        self, maps: Sequence[Float[Array, "batch _ _ channels"]]
    ) -> tuple[Float[Array, "batch anchors"], Float[Array, "batch anchors 4"]]:
        """Return the logits and deltas of all anchors."""
        hidden = [jax.nn.relu(self.conv(level)) for level in maps]
        logits = join_levels([self.objects(level) for level in hidden], 1)[..., 0]
        return logits, join_levels([self.boxes(level) for level in hidden], 4)


def sample_each(
    assigned: Int[Array, "batch boxes"],
    *,
    total: int,
    most_objects: int,
    key: jax.Array | None,
) -> Sample:
    """Return ``sample`` of every image of a batch."""

    def of_image(assigned: Array, key: Array | None) -> Sample:
        return sample(assigned, total=total, most_objects=most_objects, key=key)

    keys = None if key is None else jax.random.split(key, assigned.shape[0])
    return jax.vmap(of_image)(assigned, keys)


def proposal_losses(
    logits: Float[Array, "batch anchors"],
    deltas: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    assigned: Int[Array, "batch anchors"],
    truth: Truth,
    *,
    key: jax.Array | None,
) -> dict[str, Float[Array, ""]]:
    """Return "objects", a binary cross-entropy, and "proposals", the sum of |deltas - targets|.

    Both over the number of sampled anchors, of which every image counts at least one object and
    one of background.

    Args:
      logits: (B, A).
      deltas: (B, A, 4).
      anchors: (A, 4).
      assigned: (B, A) from ``assign``.
      truth: ground truth.
      key: a PRNG key; None samples the first anchors in their order.
    """
    chosen = sample_each(assigned, total=_SAMPLES, most_objects=_SAMPLES // 2, key=key)
    is_used = chosen.is_object | chosen.is_background
    counts = [
        jnp.maximum(jnp.sum(kind, axis=1, dtype=jnp.float32), 1.0)
        for kind in (chosen.is_object, chosen.is_background)
    ]
    normaliser = jnp.sum(jnp.where(truth.is_image, counts[0] + counts[1], 0.0))
    normaliser = jnp.maximum(normaliser, 1.0)

    found = jnp.where(is_used, rows_of(logits, chosen.indices), 0.0)
    targets = chosen.is_object.astype(jnp.float32)
    of_objects = jnp.where(is_used, binary_cross_entropy(found, targets), 0.0)

    objects = jnp.maximum(rows_of(assigned, chosen.indices) - 1, 0)
    wanted = encode_where(chosen.is_object, anchors[chosen.indices], rows_of(truth.boxes, objects))
    of_boxes = l1_sum(chosen.is_object, rows_of(deltas, chosen.indices), wanted)
    return {"objects": jnp.sum(of_objects) / normaliser, "proposals": of_boxes / normaliser}


def make_proposals(
    logits: Float[Array, "batch anchors"],
    deltas: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    is_within: Bool[Array, "batch anchors"],
    counts: Sequence[int],
    sizes: Int[Array, "batch 2"],
    *,
    candidates: int,
    limit: int,
) -> Proposals:
    """Return the best boxes of all levels that suppression within each level leaves.

    Args:
      logits: (B, A).
      deltas: (B, A, 4).
      anchors: (A, 4).
      is_within: (B, A) which anchors are of the image.
      counts: anchors of each level.
      sizes: (B, 2) height and width of the images within the canvas.
      candidates: of each level.
      limit: proposals of an image.
    """
    scores = jnp.where(is_within, jax.nn.sigmoid(logits), -jnp.inf)
    found: list[tuple[Array, Array, Array]] = []
    begin = 0
    for level, count in enumerate(counts):
        of_level = slice(begin, begin + count)
        best, places = lax.top_k(scores[:, of_level], min(candidates, count))
        boxes = decode_boxes(anchors[of_level][places], rows_of(deltas[:, of_level], places))
        found.append((boxes, best, jnp.full(best.shape, level, jnp.int32)))
        begin += count
    boxes, best, levels = (jnp.concatenate(parts, 1) for parts in zip(*found, strict=True))
    boxes = clip_to_images(boxes, sizes)
    has_area = jnp.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    best = jnp.where(has_area, best, -jnp.inf)
    kept = suppress_each(boxes, best, labels=levels, threshold=_NMS_THRESHOLD, max_outputs=limit)
    is_valid = kept.is_valid
    return Proposals(
        jnp.where(is_valid[..., None], rows_of(boxes, kept.indices), 0.0),
        jnp.where(is_valid, rows_of(best, kept.indices), 0.0),
        is_valid,
        jnp.where(is_valid, rows_of(levels, kept.indices), 0),
    )


def proposal_anchors(strides: Sequence[int]) -> Anchors:
    """Return the anchors of region proposals.

    Args:
      strides: of the maps.
    """
    return Anchors(strides=tuple(strides), scales=SCALES)
