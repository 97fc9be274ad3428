"""What detectors share: ground truth and detections as arrays of fixed shapes, and their order."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from lska_jax.models.dense.network import DenseNetwork
from lska_jax.ops.boxes import clip_boxes, encode_boxes
from lska_jax.ops.nms import suppress_each


class Truth(NamedTuple):
    """What is in the images of a batch, padded to a fixed number of objects.

    Attributes:
      boxes: (B, N, 4) corners in pixels of the canvas.
      labels: (B, N) int32.
      is_box: (B, N) which rows are objects.
      sizes: (B, 2) int32 height and width of the image within the canvas.
      is_image: (B,) which rows of the batch count.
      masks: (B, N, H, W / 8) uint8, eight pixels a byte as ``numpy.packbits`` has them; None for
        detectors of boxes alone.
    """

    boxes: Float[Array, "batch objects 4"]
    labels: Int[Array, "batch objects"]
    is_box: Bool[Array, "batch objects"]
    sizes: Int[Array, "batch 2"]
    is_image: Bool[Array, " batch"]
    masks: UInt8[Array, "batch objects height bytes"] | None = None


class Detections(NamedTuple):
    """What was found, by falling score, in a fixed number of rows.

    Attributes:
      boxes: (B, D, 4) corners in pixels of the original image.
      scores: (B, D) in [0, 1].
      labels: (B, D) int32.
      is_valid: (B, D) which rows are detections.
      masks: (B, D, side, side) probabilities inside the box, see ``ops.masks.paste_masks``; None of
        detectors of boxes alone.
    """

    boxes: Float[Array, "batch detections 4"]
    scores: Float[Array, "batch detections"]
    labels: Int[Array, "batch detections"]
    is_valid: Bool[Array, "batch detections"]
    masks: Float[Array, "batch detections side side"] | None = None


class Detector(DenseNetwork):
    """A dense network that finds boxes; a detector's own class adds ``losses`` and ``detect``."""

    def losses(
        self,
        images: Float[Array, "batch height width in_channels"],
        truth: Truth,
        *,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Float[Array, ""]]:
        """Return the parts of the loss by name, in training mode.

        They are divided by counts over the whole batch, where the reference divides by those of
        each device and averages.

        Args:
          images: (B, H, W, in_channels), normalised, zero in the padding.
          truth: what is in them.
          rngs: keys for drop path and for the choice of boxes to train on; None takes the first
            boxes in their order.
        """
        raise NotImplementedError

    def detect(
        self,
        images: Float[Array, "batch height width in_channels"],
        sizes: Int[Array, "batch 2"],
        scales: Float[Array, "batch 2"],
    ) -> Detections:
        """Return what is found, in evaluation mode.

        Args:
          images: (B, H, W, in_channels), normalised, zero in the padding.
          sizes: (B, 2) int32 height and width of the image within the canvas.
          scales: (B, 2) float32 of height and width, over those of the original image.
        """
        raise NotImplementedError

    def __call__(  # type: ignore[override]
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Detections:
        """Return what is found in images without padding, in their own pixels.

        Args:
          images: (B, H, W, in_channels), normalised, of sizes that ``features`` takes.
          rngs: not needed; training calls ``losses``.
        """
        del rngs
        images = jnp.asarray(images)
        batch, height, width, _ = images.shape
        sizes = jnp.broadcast_to(jnp.array([[height, width]], jnp.int32), (batch, 2))
        return self.detect(images, sizes, jnp.ones((batch, 2), jnp.float32))

    def own_padding(
        self, sizes: Int[Array, "batch 2"], canvas: tuple[int, int]
    ) -> Int[Array, "batch 2"]:
        """Return the sizes of images with their own padding, to whole cells of the coarsest map.

        Args:
          sizes: (B, 2) height and width.
          canvas: height and width that the batch is padded to.
        """
        stride = self.pyramid[-1].stride or 1
        padded = -(-sizes // stride) * stride
        return jnp.minimum(padded, jnp.array([canvas], jnp.int32))


def map_sizes(maps: Sequence[Any]) -> list[tuple[int, int]]:
    """Return height and width of every map (B, H, W, C)."""
    return [(level.shape[1], level.shape[2]) for level in maps]


def rows_of(
    values: Array,
    indices: Int[Array, "batch places"],
) -> Array:
    """Return values (B, N, ...) of each image at indices (B, M)."""
    return jax.vmap(lambda of_image, places: of_image[places])(values, indices)


def encode_where(
    is_object: Bool[Array, "*boxes"],
    anchors: Float[Array, "*boxes 4"],
    boxes: Float[Array, "*boxes 4"],
    *,
    stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> Float[Array, "*boxes 4"]:
    """Return the deltas from anchors to boxes where there is an object, and finite ones elsewhere.

    A logarithm of zero must not be computed at all: its gradient is no number, and none after a
    selection either.

    Args:
      is_object: (...) where boxes hold one.
      anchors: (..., 4).
      boxes: (..., 4).
      stds: as in ``ops.boxes.encode_boxes``.
    """
    unit = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0, 1.0], jnp.float32), boxes.shape)
    is_object = is_object[..., None]
    return encode_boxes(
        jnp.where(is_object, anchors, unit), jnp.where(is_object, boxes, unit), stds=stds
    )


def l1_sum(
    is_object: Bool[Array, "*boxes"],
    found: Float[Array, "*boxes 4"],
    targets: Float[Array, "*boxes 4"],
) -> Float[Array, ""]:
    """Return the sum of absolute differences of deltas, of objects alone."""
    difference = jnp.where(is_object[..., None], found.astype(jnp.float32) - targets, 0.0)
    return jnp.sum(jnp.abs(difference))


def clip_to_images(
    boxes: Float[Array, "batch boxes 4"], sizes: Int[Array, "batch 2"]
) -> Float[Array, "batch boxes 4"]:
    """Move corners outside each image to its border."""
    return jax.vmap(lambda of_image, size: clip_boxes(of_image, size[0], size[1]))(boxes, sizes)


def scale_boxes(
    boxes: Float[Array, "batch boxes 4"], scales: Float[Array, "batch 2"]
) -> Float[Array, "batch boxes 4"]:
    """Multiply x by the second of an image's scales, and y by the first."""
    factors = jnp.concatenate([scales[:, ::-1]] * 2, axis=1)
    return boxes * factors[:, None]


def unscale_boxes(
    boxes: Float[Array, "batch boxes 4"], scales: Float[Array, "batch 2"]
) -> Float[Array, "batch boxes 4"]:
    """Divide x by the second of an image's scales, and y by the first."""
    factors = jnp.concatenate([scales[:, ::-1]] * 2, axis=1)
    return boxes / factors[:, None]


def best_of_classes(
    scores: Float[Array, "batch boxes classes"], *, threshold: float, limit: int
) -> tuple[Float[Array, "batch best"], Int[Array, "batch best"], Int[Array, "batch best"]]:
    """Return the best pairs of box and class above a threshold.

    Args:
      scores: (B, N, K) in [0, 1].
      threshold: scores have to be above it.
      limit: how many pairs.

    Returns:
      Scores, -inf where there are no more; box; class.
    """
    count, classes = scores.shape[1:]
    scores = jnp.where(scores > threshold, scores, -jnp.inf)
    if count > limit:
        # A pair among the best is of a box whose best class is among the best boxes.
        _, chosen = lax.top_k(jnp.max(scores, axis=2), limit)
        # In their order, which decides among equal scores.
        chosen = jnp.sort(chosen, axis=1)
        scores = rows_of(scores, chosen)
    else:
        chosen = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], scores.shape[:2])
    flat = scores.reshape(scores.shape[0], -1)
    best, places = lax.top_k(flat, min(limit, flat.shape[1]))
    boxes = jnp.take_along_axis(chosen.astype(jnp.int32), places // classes, axis=1)
    return best, boxes, (places % classes).astype(jnp.int32)


def keep_best(
    boxes: Float[Array, "batch candidates 4"],
    scores: Float[Array, "batch candidates"],
    labels: Int[Array, "batch candidates"],
    *,
    threshold: float,
    max_detections: int,
) -> Detections:
    """Return the candidates that suppression by class leaves.

    Args:
      boxes: (B, C, 4) in pixels of the original image.
      scores: (B, C), -inf where there is no candidate.
      labels: (B, C).
      threshold: overlap from which on, and not at which, a box is suppressed.
      max_detections: rows of the result.
    """
    kept = suppress_each(
        boxes, scores, labels=labels, threshold=threshold, max_outputs=max_detections
    )
    is_valid = kept.is_valid
    return Detections(
        jnp.where(is_valid[..., None], rows_of(boxes, kept.indices), 0.0),
        jnp.where(is_valid, rows_of(scores, kept.indices), 0.0),
        jnp.where(is_valid, rows_of(labels, kept.indices), 0),
        is_valid,
    )
