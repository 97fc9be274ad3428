"""RetinaNet (arXiv 1708.02002): classes and boxes of dense anchors, with the focal loss.

Semantics are those of mmdetection 2.x, the code that the papers of VAN and LSKA ran.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lska_jax.models.dense.anchors import Anchors, join_levels
from lska_jax.models.dense.assignment import BACKGROUND, Overlaps, assign
from lska_jax.models.dense.detector import (
    Detections,
    Detector,
    Truth,
    best_of_classes,
    clip_to_images,
    encode_where,
    keep_best,
    l1_sum,
    map_sizes,
    rows_of,
    unscale_boxes,
)
from lska_jax.models.dense.fpn import FPN
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import StridedConv
from lska_jax.ops.boxes import decode_boxes
from lska_jax.ops.losses import focal_loss

_OVERLAPS = Overlaps(object_from=0.5, background_below=0.4, best_from=0.0)
_SCALES = tuple(4.0 * 2.0 ** (third / 3) for third in range(3))
_KERNEL_STD = 0.01
# With it every score is .01 in the beginning.
_CLASS_BIAS = -math.log(99.0)


class Tower(nnx.Module):
    """Convolutions with ReLU, then one to the outputs, in float32; shared by all levels.

    Args:
      channels: of the maps and of the convolutions between.
      outputs: channels of the last one.
      depth: convolutions ahead of it.
      dtype: compute dtype of those.
      rngs: source of the initial parameters.
    """

    def __init__(self, channels: int, outputs: int, *, depth: int, dtype: Any, rngs: nnx.Rngs):
        how: dict[str, Any] = {
            "kernel_size": 3,
            "stride": 1,
            "kernel_init": normal(_KERNEL_STD),
            "rngs": rngs,
        }
        self.convs = nnx.List(
            StridedConv(channels, channels, dtype=dtype, **how) for _ in range(depth)
        )
        self.last = StridedConv(channels, outputs, **how)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width outputs"]:
        """Return what is said of every cell."""
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return self.last(x)


class RetinaNet(Detector):
    """A detector of one stage.

    Args:
      config: a family's with a ``RetinaNetConfig``.
      rngs: source of the initial parameters and of the keys of drop path.
    """

    def __init__(self, config: Any, *, rngs: RngsLike):
        rngs = as_rngs(rngs)
        super().__init__(config, rngs=rngs)
        head, dtype = config.head, jnp.dtype(config.dtype)
        used = self.pyramid[1:]
        channels = head.pyramid_channels
        self.neck = FPN(
            [one.channels for one in used], channels, extra="conv", dtype=dtype, rngs=rngs
        )
        strides = [one.stride or 0 for one in used]
        strides += [2 * strides[-1], 4 * strides[-1]]
        self.anchors = Anchors(strides=tuple(strides), scales=_SCALES)
        how: dict[str, Any] = {"depth": head.tower_depth, "dtype": dtype, "rngs": rngs}
        of_cell = self.anchors.per_cell
        self.class_head = Tower(channels, of_cell * config.num_classes, **how)
        bias: Any = self.class_head.last.bias
        bias.set_value(jnp.full(bias.shape, _CLASS_BIAS, jnp.float32))
        self.box_head = Tower(channels, of_cell * 4, **how)

    def outputs(
        self,
        images: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[
        Float[Array, "batch anchors classes"],
        Float[Array, "batch anchors 4"],
        list[tuple[int, int]],
    ]:
        """Return logits and deltas of all anchors, and the sizes of the maps."""
        maps = self.neck(self.features(images, rngs=rngs)[1:])
        logits = join_levels([self.class_head(level) for level in maps], self.config.num_classes)
        deltas = join_levels([self.box_head(level) for level in maps], 4)
        return logits, deltas, map_sizes(maps)

    def losses(
        self,
        images: Float[Array, "batch height width in_channels"],
        truth: Truth,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Float[Array, ""]]:
        """Return "classes", the focal loss, and "boxes", the sum of |deltas - targets|.

        Both over the number of anchors that stand for objects, at least one for every image. See
        ``Detector.losses``.
        """
        logits, deltas, sizes = self.outputs(images, rngs=rngs)
        canvas = (images.shape[1], images.shape[2])
        is_within = self.anchors.is_within(sizes, self.own_padding(truth.sizes, canvas))
        anchors = jnp.asarray(self.anchors.boxes(sizes))
        assigned = assign_anchors(
            anchors, truth, is_within & truth.is_image[:, None], overlaps=_OVERLAPS
        )
        return retina_losses(logits, deltas, anchors, assigned, truth)

    def detect(
        self,
        images: Float[Array, "batch height width in_channels"],
        sizes: Int[Array, "batch 2"],
        scales: Float[Array, "batch 2"],
    ) -> Detections:
        """Return what is found; see ``Detector.detect``."""
        logits, deltas, maps = self.outputs(images)
        is_within = self.anchors.is_within(
            maps, self.own_padding(sizes, (images.shape[1], images.shape[2]))
        )
        anchors = jnp.asarray(self.anchors.boxes(maps))
        counts = self.anchors.counts(maps)
        return retina_detections(
            logits, deltas, anchors, is_within, counts, sizes, scales, head=self.config.head
        )


def assign_anchors(
    anchors: Float[Array, "anchors 4"],
    truth: Truth,
    is_counted: Bool[Array, "batch anchors"],
    *,
    overlaps: Overlaps,
) -> Int[Array, "batch anchors"]:
    """Return ``assign`` of every image of a batch."""

    def of_image(boxes: Array, is_truth: Array, is_box: Array) -> Array:
        return assign(anchors, boxes, is_truth=is_truth, is_box=is_box, overlaps=overlaps)

    return jax.vmap(of_image)(truth.boxes, truth.is_box, is_counted)


def retina_losses(
    logits: Float[Array, "batch anchors classes"],
    deltas: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    assigned: Int[Array, "batch anchors"],
    truth: Truth,
) -> dict[str, Float[Array, ""]]:
    """Return the losses for outputs of the heads and what anchors are assigned to."""
    is_object, is_counted = assigned > BACKGROUND, assigned >= BACKGROUND
    objects = jnp.maximum(assigned - 1, 0)
    positives = jnp.sum(is_object, axis=1, dtype=jnp.float32)
    normaliser = jnp.sum(jnp.where(truth.is_image, jnp.maximum(positives, 1.0), 0.0))
    normaliser = jnp.maximum(normaliser, 1.0)

    labels = jnp.where(is_object, rows_of(truth.labels, objects), -1)
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)
    targets = (labels[..., None] == classes[None, None]).astype(jnp.float32)
    # What does not count may hold anything: it goes before the loss, whose gradient would be none.
    logits = jnp.where(is_counted[..., None], logits, 0.0)
    of_classes = jnp.where(is_counted[..., None], focal_loss(logits, targets), 0.0)

    repeated = jnp.broadcast_to(anchors[None], deltas.shape)
    wanted = encode_where(is_object, repeated, rows_of(truth.boxes, objects))
    return {
        "classes": jnp.sum(of_classes) / normaliser,
        "boxes": l1_sum(is_object, deltas, wanted) / normaliser,
    }


def retina_detections(
    logits: Float[Array, "batch anchors classes"],
    deltas: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    is_within: Bool[Array, "batch anchors"],
    counts: Sequence[int],
    sizes: Int[Array, "batch 2"],
    scales: Float[Array, "batch 2"],
    *,
    head: Any,
) -> Detections:
    """Return detections from outputs of the heads.

    Args:
      logits: (B, A, K).
      deltas: (B, A, 4).
      anchors: (A, 4).
      is_within: (B, A) which anchors are of the image.
      counts: anchors of each level.
      sizes: of the images, see ``Detector.detect``.
      scales: likewise.
      head: the ``RetinaNetConfig``.
    """
    scores = jnp.where(is_within[..., None], jax.nn.sigmoid(logits), 0.0)
    found: list[tuple[Array, Array, Array]] = []
    begin = 0
    for count in counts:
        of_level = slice(begin, begin + count)
        best, places, labels = best_of_classes(
            scores[:, of_level], threshold=head.score_threshold, limit=head.candidates
        )
        boxes = decode_boxes(anchors[of_level][places], rows_of(deltas[:, of_level], places))
        found.append((clip_to_images(boxes, sizes), best, labels))
        begin += count
    boxes, best, labels = (jnp.concatenate(parts, 1) for parts in zip(*found, strict=True))
    return keep_best(
        unscale_boxes(boxes, scales),
        best,
        labels,
        threshold=head.nms_threshold,
        max_detections=head.max_detections,
    )
