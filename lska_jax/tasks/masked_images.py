"""Learning from images without labels: masked patches are painted from what is left of an image.

This is SimMIM (Xie and others, arXiv 2111.09886): random patches are masked, one linear layer
predicts pixels from the last map, and the loss is the mean absolute error over the masked ones.

The paper puts a learned vector in place of what the stem makes of a masked patch. The stem of a
convolutional network sees several patches at once; here the masked pixels themselves become the
mean colour, which is zero once it is normalised, so that any family can learn so. The linear layer
is the network's own classifier at every place of the last map (``Network.local_logits``);
fine-tuning and publishing leave it behind.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from lska_jax.data.augment import EvalTransform, TrainTransform
from lska_jax.data.examples import LabelledImages
from lska_jax.data.mixing import normalise
from lska_jax.data.opening import open_source
from lska_jax.data.sources import Examples, Source
from lska_jax.models.build import abstract_model, config_of
from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.tasks.classification import eval_transform, train_transform
from lska_jax.tasks.task import Batch, Best, Task

# Images that are kept for a picture, of the first batch of an evaluation.
KEPT_PICTURES = 6
_SEED_OF_EVALUATIONS = 0


class Painted(NamedTuple):
    """What evaluation keeps of some images.

    Attributes:
      error: () float32, sum over the images of their mean absolute error.
      num_images: () int32, how many were counted.
      pictures: (n, H, 3 W, C) uint8, masked, painted and as they are; of the first batch.
    """

    error: jax.Array | np.ndarray
    num_images: jax.Array | np.ndarray
    pictures: jax.Array | np.ndarray


class MaskedImages(Task):
    """Images whose masked patches are painted; labels are not read."""

    best = Best("error", is_highest=False)

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        data, own = config.data, config.masked_images
        self._mean, self._std = tuple(data.mean), tuple(data.std)
        self._side = math.isqrt(config.model.num_classes // config.model.in_channels)
        needed = predicted_values(config.model.to_dict(), image_size=data.image_size)
        if needed != config.model.num_classes:
            raise ValueError(
                f"model.num_classes={config.model.num_classes}: at each place of its last map the "
                f"network stands for {needed} values of the image; pass "
                f"--config.model.num_classes={needed}."
            )
        self._patch_size = own.patch_size or self._side
        self._ratio = float(own.ratio)

    def open_split(self, *, source: str, split: str) -> Source:
        """Open one split of any classification set."""
        return open_source(source, split=split, data_dir=self.config.data.data_dir or None)

    def train_reader(self) -> LabelledImages:
        """Return the config's host-side augmentation."""
        transform: TrainTransform = train_transform(self.config)
        return LabelledImages(transform)

    def eval_reader(self) -> LabelledImages:
        """Return the config's evaluation preprocessing."""
        transform: EvalTransform = eval_transform(self.config)
        return LabelledImages(transform)

    def prepare(self, batch: Batch, key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        """Normalise, and draw what is masked; weights are 1 / usable rows, and 0 for others."""
        mask_key, model_key = jax.random.split(key)
        images = normalise(batch["image"], mean=self._mean, std=self._std)
        count = jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
        scores = jax.random.uniform(mask_key, (len(images), self._grid(images) ** 2))
        masked = masked_pixels(scores, patch_size=self._patch_size, ratio=self._ratio)
        weight = batch["mask"] / count
        return {"image": images, "masked": masked, "weight": weight}, model_key

    def loss(
        self,
        functions: ModelFunctions,
        params: FlatArrays,
        stats: FlatArrays,
        examples: dict[str, jax.Array],
        key: jax.Array,
    ) -> tuple[jax.Array, FlatArrays]:
        """Return the mean over the images of their error, and the new statistics."""
        images, masked = examples["image"], examples["masked"]
        seen = jnp.where(masked[..., None], 0.0, images)
        values, stats = functions.train(params, stats, seen, key=key, method="local_logits")
        painted = pixels_of(values, side=self._side)
        # A masked row may hold anything, and zero times infinity is not zero, nor is its gradient.
        usable = examples["weight"][:, None, None, None] > 0
        errors = errors_of(jnp.where(usable, painted, 0.0), jnp.where(usable, images, 0.0), masked)
        return jnp.sum(examples["weight"] * errors), stats

    def measure(
        self, functions: ModelFunctions, params: FlatArrays, stats: FlatArrays, batch: Batch
    ) -> Painted:
        """Return the sum of the errors; what is masked of an image depends on its pixels alone."""
        images = normalise(batch["image"], mean=self._mean, std=self._std)
        # Whole numbers: the same sum in any order, hence in any batch and on any devices.
        sums = jnp.sum(batch["image"].astype(jnp.uint32), axis=(1, 2, 3), dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            jax.random.key(_SEED_OF_EVALUATIONS), sums
        )
        patches = self._grid(images) ** 2
        scores = jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(keys)
        masked = masked_pixels(scores, patch_size=self._patch_size, ratio=self._ratio)
        seen = jnp.where(masked[..., None], 0.0, images)
        values = functions.evaluate(params, stats, seen, method="local_logits")
        painted = pixels_of(values, side=self._side)
        errors = errors_of(painted, images, masked)
        whole = jnp.where(masked[..., None], painted, images)
        shown = jnp.concatenate([seen, whole, images], axis=2)[:KEPT_PICTURES]
        return Painted(
            jnp.sum(jnp.where(batch["mask"], errors, 0.0)),
            jnp.sum(batch["mask"], dtype=jnp.int32),
            self._as_pixels(shown),
        )

    def add(self, total: Painted, part: Painted) -> Painted:
        """Add errors and counts; the pictures are those of the first batch."""
        counted = total.num_images + part.num_images
        return Painted(total.error + part.error, counted, total.pictures)

    def means(self, total: Painted) -> dict[str, float]:
        """Return the mean absolute error of masked pixels, in standard deviations of the data.

        Raises:
          ValueError: no image was counted.
        """
        if not total.num_images:
            raise ValueError("No image was counted: every one was masked out or missing.")
        return {"error": float(total.error) / int(total.num_images)}

    def keep_predictions(
        self, total: Painted, source: Examples, folder: Path
    ) -> Mapping[str, np.ndarray]:
        """Return a sheet of images: masked, painted, and as they are."""
        del source, folder
        rows = np.concatenate([*np.asarray(total.pictures)], axis=0)
        return {"painted": np.repeat(rows, 3, axis=2) if rows.shape[2] == 1 else rows}

    def next_commands(self, workdir: str) -> Sequence[str]:
        """Return how a classifier starts from a run."""
        return (f"lska-jax train --data PHOTOS --from {workdir}",)

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the error."""
        return f"error of masked pixels {means['error']:.4f}"

    def _grid(self, images: jax.Array) -> int:
        return images.shape[1] // self._patch_size

    def _as_pixels(self, images: jax.Array) -> jax.Array:
        mean, std = jnp.asarray(self._mean), jnp.asarray(self._std)
        pixels = images * std[None, None, None, :] + mean[None, None, None, :]
        return jnp.round(255 * jnp.clip(pixels, 0.0, 1.0)).astype(jnp.uint8)


def predicted_values(section: Mapping[str, Any], *, image_size: int) -> int:
    """Return how many values of an image a place of a network's last map stands for.

    Args:
      section: of the network, as ``config.model``.
      image_size: side of the images in pixels.

    Raises:
      ValueError: the map does not divide the image evenly.
    """
    config = config_of(section)
    graph, state = nnx.split(abstract_model(config))
    images = jax.ShapeDtypeStruct((1, image_size, image_size, config.in_channels), jnp.float32)
    shape = jax.eval_shape(
        lambda state, images: nnx.merge(graph, state).local_logits(images), state, images
    ).shape
    rows = cast(int, shape[1])
    if image_size % rows:
        raise ValueError(
            f"data.image_size={image_size}: the network's last map has {rows} places a side, which "
            f"do not share the image evenly; give a multiple of {rows}."
        )
    return config.in_channels * (image_size // rows) ** 2


def masked_pixels(
    scores: Float[Array, "batch patches"], *, patch_size: int, ratio: float
) -> Bool[Array, "batch height width"]:
    """Mask the patches of each image that have the lowest scores: a fixed part of them, rounded up.

    Args:
      scores: of a square grid of patches, row by row.
      patch_size: side of a patch in pixels.
      ratio: part of the patches.
    """
    batch, patches = scores.shape
    side = math.isqrt(patches)
    ranks = jnp.argsort(jnp.argsort(scores, axis=1), axis=1)
    # 0.6 * 25 is 15.000000000000002 in some orders of arithmetic.
    grid = (ranks < math.ceil(round(ratio * patches, 6))).reshape(batch, side, side)
    return jnp.repeat(jnp.repeat(grid, patch_size, axis=1), patch_size, axis=2)


def pixels_of(
    values: Float[Array, "batch rows columns values"], *, side: int
) -> Float[Array, "batch height width channels"]:
    """Return what is predicted at the places of a map as one image.

    Args:
      values: of each place (side, side, channels), row by row.
      side: pixels of a place.
    """
    batch, rows, columns, count = values.shape
    places = values.reshape(batch, rows, columns, side, side, count // side**2)
    return places.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * side, columns * side, -1)


def errors_of(
    painted: Float[Array, "batch height width channels"],
    images: Float[Array, "batch height width channels"],
    masked: Bool[Array, "batch height width"],
) -> Float[Array, " batch"]:
    """Return the mean absolute error of each image over its masked pixels and all channels."""
    errors = jnp.where(masked[..., None], jnp.abs(painted.astype(jnp.float32) - images), 0.0)
    counts = jnp.sum(masked, axis=(1, 2), dtype=jnp.float32) * images.shape[3]
    return jnp.sum(errors, axis=(1, 2, 3)) / counts
