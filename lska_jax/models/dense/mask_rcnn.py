"""Mask R-CNN (arXiv 1703.06870): region proposals, then class, box and mask of each.

Semantics are those of mmdetection 2.x, the code that the papers of VAN and LSKA ran.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from lska_jax.models.dense.assignment import NEITHER, assign
from lska_jax.models.dense.detector import (
    Detections,
    Detector,
    Truth,
    map_sizes,
    rows_of,
    scale_boxes,
)
from lska_jax.models.dense.fpn import FPN
from lska_jax.models.dense.retinanet import assign_anchors
from lska_jax.models.dense.roi_heads import (
    BOX_SIDE,
    MASK_SIDE,
    OBJECT_SHARE,
    OVERLAPS,
    BoxHead,
    MaskHead,
    box_detections,
    box_losses,
    mask_loss,
)
from lska_jax.models.dense.rpn import OVERLAPS as ANCHOR_OVERLAPS
from lska_jax.models.dense.rpn import (
    ProposalHead,
    Proposals,
    make_proposals,
    proposal_anchors,
    proposal_losses,
    sample_each,
)
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.ops.masks import each_mask_targets
from lska_jax.ops.roi_align import pyramid_levels, roi_align

# Squares of so many cells of the finest map are read from the second one, half of them from it.
_FINEST_CELLS = 14


class RoiSamples(NamedTuple):
    """Boxes of each image that the heads are trained on, objects first.

    Attributes:
      boxes: (B, S, 4).
      objects: (B, S) place of the object in the ground truth.
      is_object: (B, S).
      is_background: (B, S).
    """

    boxes: Float[Array, "batch samples 4"]
    objects: Int[Array, "batch samples"]
    is_object: Bool[Array, "batch samples"]
    is_background: Bool[Array, "batch samples"]


class MaskRCNN(Detector):
    """A detector of two stages, with masks.

    Args:
      config: a family's with a ``MaskRCNNConfig``.
      rngs: source of the initial parameters and of the keys of drop path.
    """

    def __init__(self, config: Any, *, rngs: RngsLike):
        rngs = as_rngs(rngs)
        super().__init__(config, rngs=rngs)
        head, dtype = config.head, jnp.dtype(config.dtype)
        channels, classes = head.pyramid_channels, config.num_classes
        self.neck = FPN(
            [one.channels for one in self.pyramid], channels, extra="pool", dtype=dtype, rngs=rngs
        )
        strides = tuple(one.stride or 0 for one in self.pyramid)
        self.strides = strides
        self.anchors = proposal_anchors((*strides, 2 * strides[-1]))
        self.rpn = ProposalHead(channels, self.anchors.per_cell, dtype=dtype, rngs=rngs)
        self.box_head = BoxHead(channels, head.hidden_channels, classes, dtype=dtype, rngs=rngs)
        self.mask_head = MaskHead(channels, classes, depth=head.mask_depth, dtype=dtype, rngs=rngs)

    def pyramid_maps(
        self,
        images: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> list[Float[Array, "batch _ _ channels"]]:
        """Return the pyramid, one map more than the backbone has, of which boxes are not read."""
        return self.neck(self.features(images, rngs=rngs))

    def read(
        self,
        maps: Sequence[Float[Array, "batch _ _ channels"]],
        boxes: Float[Array, "batch boxes 4"],
        *,
        side: int,
    ) -> Float[Array, "batch boxes side side channels"]:
        """Return what the pyramid holds inside boxes."""
        finest = float(_FINEST_CELLS * self.strides[0])
        levels = pyramid_levels(boxes, levels=len(self.strides), finest=finest)
        return roi_align(
            maps[: len(self.strides)],
            boxes,
            strides=self.strides,
            side=side,
            levels=levels,
            taps=self.config.head.roi_taps,
        )

    def losses(
        self,
        images: Float[Array, "batch height width in_channels"],
        truth: Truth,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Float[Array, ""]]:
        """Return "objects" and "proposals", "classes" and "boxes", and "masks".

        The first two of the region proposals, the next two of the boxes. See ``Detector.losses``.

        Raises:
          ValueError: ground truth without masks.
        """
        if truth.masks is None:
            raise ValueError("Mask R-CNN is trained on masks, and the ground truth has none.")
        keys: tuple[Any, Any] = (None, None) if rngs is None else (rngs.dropout(), rngs.dropout())
        maps = self.pyramid_maps(images, rngs=rngs)
        sizes, canvas = map_sizes(maps), (images.shape[1], images.shape[2])
        logits, deltas = self.rpn(maps)
        is_within = self.anchors.is_within(sizes, self.own_padding(truth.sizes, canvas))
        is_within &= truth.is_image[:, None]
        anchors = jnp.asarray(self.anchors.boxes(sizes))
        assigned = assign_anchors(anchors, truth, is_within, overlaps=ANCHOR_OVERLAPS)
        losses = proposal_losses(logits, deltas, anchors, assigned, truth, key=keys[0])

        head = self.config.head
        # Here the reference takes anchors of the batch's padding too, unlike where it assigns them.
        proposals = make_proposals(
            lax.stop_gradient(logits),
            lax.stop_gradient(deltas),
            anchors,
            jnp.broadcast_to(truth.is_image[:, None], logits.shape),
            self.anchors.counts(sizes),
            truth.sizes,
            candidates=head.train_candidates,
            limit=head.proposals,
        )
        samples = sample_boxes(proposals, truth, total=head.samples, key=keys[1])
        labels = rows_of(truth.labels, samples.objects)
        of_boxes = self.box_head(self.read(maps, samples.boxes, side=BOX_SIDE))
        losses |= box_losses(
            *of_boxes,
            samples.boxes,
            rows_of(truth.boxes, samples.objects),
            labels,
            is_object=samples.is_object,
            is_background=samples.is_background,
        )

        # Objects are the first of the samples.
        most = int(head.samples * OBJECT_SHARE)
        boxes, objects, is_object = (part[:, :most] for part in samples[:3])
        masks = self.mask_head(self.read(maps, boxes, side=MASK_SIDE), labels[:, :most])
        targets = each_mask_targets(truth.masks, boxes, objects, side=2 * MASK_SIDE)
        return losses | {"masks": mask_loss(masks, targets, is_object=is_object)}

    def propose(
        self,
        maps: Sequence[Float[Array, "batch _ _ channels"]],
        sizes: Int[Array, "batch 2"],
        canvas: tuple[int, int],
    ) -> Proposals:
        """Return the proposals of an evaluation.

        Args:
          maps: the pyramid.
          sizes: (B, 2) height and width of the images within the canvas.
          canvas: height and width that they are padded to.
        """
        logits, deltas = self.rpn(maps)
        of_maps, head = map_sizes(maps), self.config.head
        return make_proposals(
            logits,
            deltas,
            jnp.asarray(self.anchors.boxes(of_maps)),
            self.anchors.is_within(of_maps, self.own_padding(sizes, canvas)),
            self.anchors.counts(of_maps),
            sizes,
            candidates=head.test_candidates,
            limit=head.proposals,
        )

    def detect(
        self,
        images: Float[Array, "batch height width in_channels"],
        sizes: Int[Array, "batch 2"],
        scales: Float[Array, "batch 2"],
    ) -> Detections:
        """Return what is found, with masks; see ``Detector.detect``."""
        maps = self.pyramid_maps(images)
        proposals = self.propose(maps, sizes, (images.shape[1], images.shape[2]))
        logits, deltas = self.box_head(self.read(maps, proposals.boxes, side=BOX_SIDE))
        found = box_detections(
            logits,
            deltas,
            proposals.boxes,
            proposals.is_valid,
            sizes,
            scales,
            head=self.config.head,
        )
        inside = self.read(maps, scale_boxes(found.boxes, scales), side=MASK_SIDE)
        masks = jax.nn.sigmoid(self.mask_head(inside, found.labels))
        return found._replace(masks=jnp.where(found.is_valid[..., None, None], masks, 0.0))


def sample_boxes(
    proposals: Proposals, truth: Truth, *, total: int, key: jax.Array | None
) -> RoiSamples:
    """Choose the boxes that the heads are trained on: ground truth ahead of proposals.

    Args:
      proposals: without gradients.
      truth: ground truth.
      total: boxes of an image.
      key: a PRNG key; None takes the first ones in their order.
    """

    def of_image(boxes: Array, is_valid: Array, truths: Array, is_truth: Array) -> Array:
        found = assign(boxes, truths, is_truth=is_truth, is_box=is_valid, overlaps=OVERLAPS)
        own = jnp.arange(1, truths.shape[0] + 1, dtype=found.dtype)
        return jnp.concatenate([jnp.where(is_truth, own, NEITHER), found])

    is_counted = proposals.is_valid & truth.is_image[:, None]
    is_truth = truth.is_box & truth.is_image[:, None]
    assigned = jax.vmap(of_image)(proposals.boxes, is_counted, truth.boxes, is_truth)
    boxes = jnp.concatenate([truth.boxes, proposals.boxes], axis=1)
    chosen = sample_each(assigned, total=total, most_objects=int(total * OBJECT_SHARE), key=key)
    objects = jnp.maximum(rows_of(assigned, chosen.indices) - 1, 0)
    return RoiSamples(
        rows_of(boxes, chosen.indices), objects, chosen.is_object, chosen.is_background
    )
