"""Detection: boxes, and with some heads masks, as mmdetection 2.x trains and COCO judges them.

Batches have wide or upright images, each kind on a canvas of its own: two compiled programs at
most. Losses are divided by counts over the microbatch, as the reference divides by those of a GPU.
"""

import functools
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from lska_jax.data.examples import Fields
from lska_jax.data.loader import HostBatch
from lska_jax.data.mixing import normalise
from lska_jax.data.object_reader import ObjectReader
from lska_jax.data.opening_objects import open_objects
from lska_jax.data.oriented_batches import (
    oriented_eval_batches,
    oriented_train_batches,
    split_by_orientation,
)
from lska_jax.data.scenes import ObjectSource
from lska_jax.data.sources import Examples, SourceFacts
from lska_jax.models.dense.detector import Truth
from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.tasks.classification_check import check_facts
from lska_jax.tasks.detection_check import uses_masks
from lska_jax.tasks.detections import (
    Detections,
    as_found,
    detection_metrics,
    join_detections,
    write_coco_results,
)
from lska_jax.tasks.pictures.detections import detection_sheet
from lska_jax.tasks.task import Batch, Best, Task


class Detection(Task):
    """Images with objects."""

    best = Best("box_AP")

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self._mean, self._std = tuple(config.data.mean), tuple(config.data.std)
        self._own = config.detection
        self._use_masks = uses_masks(config)
        self._judged: ObjectSource | None = None

    # Data

    def open_split(self, *, source: str, split: str) -> ObjectSource:
        """Open one split; its classes are as many as the model's, and its objects have room.

        The training split leaves out the images that the reference does not train on.
        """
        opened = open_objects(
            source,
            split=split,
            use_masks=self._use_masks,
            is_for_training=split == self.config.data.train_split,
        )
        facts = SourceFacts(len(opened.class_names), len(opened))
        check_facts(self.config, facts, f"{source} split {split!r}")
        if opened.most_objects > self._own.max_objects:
            raise ValueError(
                f"{opened.name} has images with {opened.most_objects} objects, and "
                f"detection.max_objects={self._own.max_objects} leaves no room for them. Raise it."
            )
        return opened

    def class_names(self, examples: Examples) -> tuple[str, ...]:
        """Return the names of the classes."""
        return cast(ObjectSource, examples).class_names

    def train_reader(self) -> ObjectReader:
        """Return what reads wide images for training."""
        return self._readers(is_training=True)[0]

    def eval_reader(self) -> ObjectReader:
        """Return what reads wide images for evaluations."""
        return self._readers(is_training=False)[0]

    def train_shapes(self) -> Sequence[Fields]:
        """Return the fields of wide images, and of upright ones where their canvas differs."""
        return self._shapes(is_training=True)

    def eval_shapes(self) -> Sequence[Fields]:
        """Return the fields of an evaluation's batches; see ``train_shapes``."""
        return self._shapes(is_training=False)

    def train_batches(self, source: Examples, **loading: Any) -> Generator[HostBatch, None, None]:
        """Yield batches of wide images, and of upright ones, in turns."""
        readers = self._readers(is_training=True)
        return oriented_train_batches(source, readers, self._groups(source), **loading)

    def eval_batches(self, source: Examples, **loading: Any) -> Generator[HostBatch, None, None]:
        """Yield batches that hold every example once, of wide images first."""
        # What ``means`` compares with.
        self._judged = cast(ObjectSource, source)
        readers = self._readers(is_training=False)
        return oriented_eval_batches(source, readers, self._groups(source), **loading)

    def _shapes(self, *, is_training: bool) -> Sequence[Fields]:
        wide, upright = (reader.fields for reader in self._readers(is_training=is_training))
        return (wide,) if wide == upright else (wide, upright)

    def _groups(self, source: Examples) -> tuple[np.ndarray, np.ndarray]:
        height, width = self._own.canvas
        if height == width:
            return np.arange(len(source)), np.arange(0)
        return split_by_orientation(cast(ObjectSource, source).sizes)

    def _readers(self, *, is_training: bool) -> tuple[ObjectReader, ObjectReader]:
        data = self.config.data
        short, long = sorted(map(int, self._own.canvas))

        def reader(canvas: tuple[int, int]) -> ObjectReader:
            return ObjectReader(
                canvas=canvas,
                bounds=(data.long_side, data.image_size),
                max_objects=self._own.max_objects,
                use_masks=self._use_masks and is_training,
                flip_prob=data.hflip_prob,
                jitter=(float(self._own.jitter[0]), float(self._own.jitter[1])),
                max_pixels=data.max_image_pixels,
            )

        return reader((short, long)), reader((long, short))

    # The training step

    def prepare(self, batch: Batch, key: jax.Array) -> tuple[dict[str, Array], jax.Array]:
        """Normalise; shares are 1 / number of usable rows, and 0 for others."""
        rows = jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
        shares = batch["mask"] / rows
        return {**batch, "image": self._normalised(batch), "share": shares}, key

    def loss(
        self,
        functions: ModelFunctions,
        params: FlatArrays,
        stats: FlatArrays,
        examples: dict[str, Array],
        key: jax.Array,
    ) -> tuple[jax.Array, FlatArrays]:
        """Return the sum of the detector's losses, and the new statistics."""
        truth = Truth(
            boxes=examples["boxes"],
            labels=examples["labels"],
            is_box=examples["box_mask"],
            sizes=examples["size"],
            is_image=examples["mask"],
            masks=examples.get("masks"),
        )
        losses, stats = functions.train(
            params, stats, examples["image"], truth, key=key, method="losses"
        )
        return jnp.sum(examples["share"]) * functools.reduce(jnp.add, losses.values()), stats

    # Evaluation

    def measure(
        self, functions: ModelFunctions, params: FlatArrays, stats: FlatArrays, batch: Batch
    ) -> Detections:
        """Return what is found in every row."""
        scales = batch["size"].astype(jnp.float32) / batch["original_size"].astype(jnp.float32)
        found = functions.evaluate(
            params, stats, self._normalised(batch), batch["size"], scales, method="detect"
        )
        return Detections(
            position=jnp.where(batch["mask"], batch["position"], -1),
            original_size=batch["original_size"],
            boxes=found.boxes,
            scores=found.scores,
            labels=found.labels,
            is_found=found.is_valid,
            masks=found.masks,
        )

    def add(self, total: Any, part: Any) -> Any:
        """Return what is found in the images of both; see ``join_detections``."""
        return join_detections(total, part)

    def means(self, total: Any) -> dict[str, float]:
        """Return COCO's twelve numbers of boxes, "box_AP" and so on, and with masks of those too.

        Raises:
          ValueError: no evaluation is under way whose truth they could be compared with.
        """
        if self._judged is None:
            raise ValueError("Call eval_batches first: its source is what is compared with.")
        return detection_metrics(as_found(total), self._judged, use_masks=self._use_masks)

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the first of the numbers."""
        names = ("box_AP", "box_AP50", "mask_AP")
        return ", ".join(f"{name} {means[name]:.3f}" for name in names if name in means)

    def keep_predictions(
        self, total: Any, source: Examples, folder: Path
    ) -> Mapping[str, np.ndarray]:
        """Write COCO's results files, and return a sheet of some images."""
        found, objects = as_found(total), cast(ObjectSource, source)
        write_coco_results(folder, found, objects, use_masks=self._use_masks)
        return {"predictions": np.asarray(detection_sheet(found, objects))}

    def _normalised(self, batch: Batch) -> Array:
        """Return images whose padding is zero, as in the reference."""
        images, sizes = batch["image"], batch["size"]
        rows = jnp.arange(images.shape[1])[None] < sizes[:, :1]
        columns = jnp.arange(images.shape[2])[None] < sizes[:, 1:]
        is_inside = rows[:, :, None] & columns[:, None]
        normalised = normalise(images, mean=self._mean, std=self._std)
        return jnp.where(is_inside[..., None], normalised, 0.0)
