"""What Mask R-CNN says of each box: its class, a better box, and a mask (arXiv 1703.06870)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from lska_jax.models.dense.assignment import Overlaps
from lska_jax.models.dense.detector import (
    Detections,
    clip_to_images,
    encode_where,
    keep_best,
    l1_sum,
    unscale_boxes,
)
from lska_jax.nn.dense import Dense
from lska_jax.nn.initial_values import normal, xavier_uniform
from lska_jax.nn.layers import StridedConv
from lska_jax.ops.boxes import decode_boxes
from lska_jax.ops.broadcast import add_bias
from lska_jax.ops.losses import binary_cross_entropy, cross_entropy

OVERLAPS = Overlaps(object_from=0.5, background_below=0.5, best_from=0.5)
STDS = (0.1, 0.1, 0.2, 0.2)
BOX_SIDE, MASK_SIDE = 7, 14
# Of the samples, at most.
OBJECT_SHARE = 0.25

_CLASSES_STD, _BOXES_STD = 0.01, 0.001


class BoxHead(nnx.Module):
    """Two layers with ReLU on what a box holds, then its class and its deltas, in float32.

    Args:
      channels: of the maps.
      hidden_channels: of both layers.
      classes: without the background, which is the last logit.
      dtype: compute dtype of the layers.
      rngs: source of the initial parameters.
    """

    def __init__(
        self, channels: int, hidden_channels: int, classes: int, *, dtype: Any, rngs: nnx.Rngs
    ):
        inputs = (BOX_SIDE * BOX_SIDE * channels, hidden_channels)
        self.hidden = nnx.List(
            Dense(size, hidden_channels, kernel_init=xavier_uniform(1, 1), dtype=dtype, rngs=rngs)
            for size in inputs
        )
        self.classes = Dense(
            hidden_channels, classes + 1, kernel_init=normal(_CLASSES_STD), rngs=rngs
        )
        self.boxes = Dense(hidden_channels, 4 * classes, kernel_init=normal(_BOXES_STD), rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch boxes side side channels"]
    ) -> tuple[Float[Array, "batch boxes outputs"], Float[Array, "batch boxes classes 4"]]:
        """Return logits, background last, and deltas for every class."""
        # Checkpoints have the kernel for channels first.
        x = jnp.moveaxis(x, -1, 2).reshape(*x.shape[:2], -1)
        for layer in self.hidden:
            x = jax.nn.relu(layer(x))
        return self.classes(x), self.boxes(x).reshape(*x.shape[:2], -1, 4)


class Doubling(nnx.Module):
    """A transposed convolution of 2x2 at stride 2: every pixel becomes four.

    Args:
      channels: of input and output.
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        initial = _fan_out_of_torch(2, 2, channels)
        self.kernel = nnx.Param(initial(rngs.params(), (2, 2, channels, channels), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.dtype = dtype

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, 2 H, 2 W, C) with out[2 y + a, 2 x + b] = x[y, x] W[a, b]."""
        batch, height, width, channels = x.shape
        kernel = self.kernel[...].astype(self.dtype)
        out = jnp.einsum("nhwi,abio->nhawbo", x.astype(self.dtype), kernel)
        return add_bias(out.reshape(batch, 2 * height, 2 * width, channels), self.bias[...])


class MaskHead(nnx.Module):
    """Convolutions on what a box holds, a doubling, and a mask of the box's class, in float32.

    Args:
      channels: of the maps.
      classes: of boxes.
      depth: convolutions ahead of the doubling.
      dtype: compute dtype of the convolutions.
      rngs: source of the initial parameters.
    """

    def __init__(self, channels: int, classes: int, *, depth: int, dtype: Any, rngs: nnx.Rngs):
        self.convs = nnx.List(
            StridedConv(channels, channels, kernel_size=3, stride=1, dtype=dtype, rngs=rngs)
            for _ in range(depth)
        )
        self.doubling = Doubling(channels, dtype=dtype, rngs=rngs)
        self.classes = Dense(
            channels, classes, kernel_init=_fan_out_of_torch(1, 1, classes), rngs=rngs
        )

    def __call__(
        self,
        x: Float[Array, "batch boxes side side channels"],
        labels: Int[Array, "batch boxes"],
    ) -> Float[Array, "batch boxes out_side out_side"]:
        """Return the logits of the mask of each box's class, at twice the side."""
        batch, boxes = labels.shape
        x = x.reshape(-1, *x.shape[2:])
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        x = jax.nn.relu(self.doubling(x)).astype(jnp.float32)
        # One class a box: the other classes' masks need not be computed.
        labels = labels.reshape(-1)
        bias: Any = self.classes.bias
        kernels, biases = self.classes.kernel[...].T[labels], bias[...][labels]
        logits = jnp.einsum("nhwc,nc->nhw", x, kernels) + biases[:, None, None]
        return logits.reshape(batch, boxes, *logits.shape[1:])


def _fan_out_of_torch(height: int, width: int, channels: int) -> nnx.Initializer:
    return normal(math.sqrt(2.0 / (height * width * channels)))


def box_losses(
    logits: Float[Array, "batch samples outputs"],
    deltas: Float[Array, "batch samples classes 4"],
    boxes: Float[Array, "batch samples 4"],
    truth_boxes: Float[Array, "batch samples 4"],
    truth_labels: Int[Array, "batch samples"],
    *,
    is_object: Bool[Array, "batch samples"],
    is_background: Bool[Array, "batch samples"],
) -> dict[str, Float[Array, ""]]:
    """Return "classes", a cross-entropy, and "boxes", the sum of |deltas - targets|.

    Both over the number of samples, the boxes' too.

    Args:
      logits: (B, S, K + 1), background last.
      deltas: (B, S, K, 4); those of the object's class count.
      boxes: (B, S, 4) samples.
      truth_boxes: (B, S, 4) of the object of each sample.
      truth_labels: (B, S) likewise.
      is_object: (B, S) which samples are objects.
      is_background: (B, S) which ones are background; what is neither counts nothing.
    """
    is_used = is_object | is_background
    count = jnp.maximum(jnp.sum(is_used, dtype=jnp.float32), 1.0)
    classes = deltas.shape[2]
    labels = jnp.where(is_object, truth_labels, classes)
    logits = jnp.where(is_used[..., None], logits, 0.0)
    of_classes = jnp.where(is_used, cross_entropy(logits, labels), 0.0)
    of_label = jnp.minimum(labels, classes - 1)[..., None, None]
    found = jnp.take_along_axis(deltas, of_label, axis=2)[:, :, 0]
    wanted = encode_where(is_object, boxes, truth_boxes, stds=STDS)
    return {
        "classes": jnp.sum(of_classes) / count,
        "boxes": l1_sum(is_object, found, wanted) / count,
    }


def mask_loss(
    logits: Float[Array, "batch objects side side"],
    targets: Bool[Array, "batch objects side side"],
    *,
    is_object: Bool[Array, "batch objects"],
) -> Float[Array, ""]:
    """Return the binary cross-entropy of the objects' pixels, their mean; 0 without objects."""
    count = jnp.maximum(jnp.sum(is_object, dtype=jnp.float32), 1.0) * math.prod(logits.shape[2:])
    is_object = is_object[..., None, None]
    losses = binary_cross_entropy(jnp.where(is_object, logits, 0.0), targets.astype(jnp.float32))
    return jnp.sum(jnp.where(is_object, losses, 0.0)) / count


def box_detections(
    logits: Float[Array, "batch proposals outputs"],
    deltas: Float[Array, "batch proposals classes 4"],
    boxes: Float[Array, "batch proposals 4"],
    is_valid: Bool[Array, "batch proposals"],
    sizes: Int[Array, "batch 2"],
    scales: Float[Array, "batch 2"],
    *,
    head: Any,
) -> Detections:
    """Return detections, of boxes alone, from outputs of the box head.

    Args:
      logits: (B, P, K + 1), background last.
      deltas: (B, P, K, 4).
      boxes: (B, P, 4) proposals.
      is_valid: (B, P) which of them are any.
      sizes: of the images, see ``Detector.detect``.
      scales: likewise.
      head: the ``MaskRCNNConfig``.
    """
    batch, count, classes, _ = deltas.shape
    scores = jax.nn.softmax(logits, axis=-1)[..., :classes]
    threshold = head.score_threshold
    scores = jnp.where(is_valid[..., None] & (scores > threshold), scores, -jnp.inf)
    # Scores of a box add up to one, so that few classes of it are above the threshold.
    most = min(classes, math.ceil(1 / threshold) - 1) if threshold > 0 else classes
    best, labels = jax.lax.top_k(scores, most)
    chosen = jnp.take_along_axis(deltas, labels[..., None].astype(jnp.int32), axis=2)
    repeated = jnp.broadcast_to(boxes[:, :, None], chosen.shape)
    decoded = decode_boxes(repeated, chosen, stds=STDS).reshape(batch, count * most, 4)
    return keep_best(
        unscale_boxes(clip_to_images(decoded, sizes), scales),
        best.reshape(batch, -1),
        labels.reshape(batch, -1).astype(jnp.int32),
        threshold=head.nms_threshold,
        max_detections=head.max_detections,
    )
