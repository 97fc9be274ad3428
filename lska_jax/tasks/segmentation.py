"""Semantic segmentation: a class a pixel, as mmsegmentation 0.x trains and judges it.

The loss is the mean over all pixels of a batch: those without a label add nothing to the sum and
count in the mean. In an evaluation the logits are resized to the network's input, cut to what is
image in it, and resized to the size of the labels: two resizes, whose product is one here.
"""

import functools
import io
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict
from PIL import Image

from lska_jax.data.class_folders import file_stem
from lska_jax.data.examples import Fields
from lska_jax.data.label_map_reader import EvalLabelMaps, TrainLabelMaps
from lska_jax.data.label_maps import read_label_map
from lska_jax.data.loader import HostBatch
from lska_jax.data.mixing import normalise
from lska_jax.data.opening_label_maps import LabelMapSource, open_label_maps
from lska_jax.data.oriented_batches import oriented_eval_batches, split_by_orientation
from lska_jax.data.photometric import distort
from lska_jax.data.scenes import IGNORED_LABEL
from lska_jax.data.sources import Examples, SourceFacts
from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.ops.broadcast import along_channels
from lska_jax.ops.resize import axis_weights, resize_bilinear
from lska_jax.running.whole_file import write_whole
from lska_jax.tasks.area_metrics import Areas, absent_classes, areas_of, scores_of
from lska_jax.tasks.classification_check import check_facts, given_weights
from lska_jax.tasks.pictures.segmentation import segmentation_sheet
from lska_jax.tasks.task import Batch, Best, Task

# Predictions that are kept for pictures where not all are written.
KEPT_PICTURES = 8
_SHOWN_NAMES = 10
# Rows of label size whose logits are there at once.
_ROWS = 32


class Segmentation(Task):
    """Images with a class a pixel."""

    best = Best("mIoU")

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        self._mean, self._std = tuple(config.data.mean), tuple(config.data.std)
        self._own, self._num_classes = config.segmentation, config.model.num_classes
        self._class_names = tuple(f"class {number}" for number in range(self._num_classes))
        self._absent: list[str] = []
        self._class_weights = given_weights(config.training.class_weights)

    # Data

    def open_split(self, *, source: str, split: str) -> LabelMapSource:
        """Open one split; its classes are as many as the model's, and its images fit."""
        opened = open_label_maps(
            source,
            split=split,
            num_classes=self._num_classes,
            max_pixels=self.config.data.max_image_pixels,
        )
        facts = SourceFacts(len(opened.class_names), len(opened))
        check_facts(self.config, facts, f"{source} split {split!r}")
        return opened

    def class_names(self, examples: Examples) -> tuple[str, ...]:
        """Return the names of the classes."""
        return cast(LabelMapSource, examples).class_names

    def train_reader(self) -> TrainLabelMaps:
        """Return the config's geometric augmentation."""
        data = self.config.data
        return TrainLabelMaps(
            canvas=_pair(self._own.crop_size),
            bounds=(data.long_side, data.image_size),
            jitter=(float(self._own.jitter[0]), float(self._own.jitter[1])),
            most=self._own.most_of_a_class,
            flip_prob=data.hflip_prob,
            max_pixels=data.max_image_pixels,
        )

    def eval_reader(self) -> EvalLabelMaps:
        """Return what reads wide images."""
        return self._eval_readers()[0]

    def eval_shapes(self) -> Sequence[Fields]:
        """Return the fields of wide images, and of upright ones where their canvas differs."""
        shapes = [reader.fields for reader in self._eval_readers()]
        return shapes if shapes[0] != shapes[1] else shapes[:1]

    def eval_batches(self, source: Examples, **loading: Any) -> Generator[HostBatch, None, None]:
        """Yield batches that hold every example once, of wide images first."""
        self._class_names = self.class_names(source)
        groups: Sequence[np.ndarray] = (np.arange(len(source)), np.arange(0))
        if len(self.eval_shapes()) > 1:
            groups = split_by_orientation(cast(LabelMapSource, source).sizes)
        return oriented_eval_batches(source, self._eval_readers(), groups, **loading)

    def _eval_readers(self) -> tuple[EvalLabelMaps, EvalLabelMaps]:
        data, canvases = self.config.data, (self._own.eval_canvas, self._own.label_canvas)

        def reader(order: int) -> EvalLabelMaps:
            canvas, label_canvas = (_pair(canvas)[::order] for canvas in canvases)
            return EvalLabelMaps(
                canvas=(canvas[0], canvas[1]),
                label_canvas=(label_canvas[0], label_canvas[1]),
                bounds=(data.long_side, data.image_size),
                max_pixels=data.max_image_pixels,
            )

        return reader(1), reader(-1)

    # The training step

    def prepare(self, batch: Batch, key: jax.Array) -> tuple[dict[str, Array], jax.Array]:
        """Distort and normalise; weights are 1 / number of pixels of usable rows, 0 for others."""
        distort_key, model_key = jax.random.split(key)
        images, labels = batch["image"], batch["label_map"]
        if self._own.photometric:
            images = distort(images, distort_key)
        rows = jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
        pixels = labels.shape[1] * labels.shape[2]
        return {
            "image": self._prepared(images, batch["size"]),
            "label_map": labels,
            "weight": batch["mask"] / (rows * pixels),
        }, model_key

    def loss(
        self,
        functions: ModelFunctions,
        params: FlatArrays,
        stats: FlatArrays,
        examples: dict[str, Array],
        key: jax.Array,
    ) -> tuple[jax.Array, FlatArrays]:
        """Return the cross-entropy of all heads, and the new statistics."""
        outputs, stats = functions.train(
            params, stats, examples["image"], key=key, method="all_logits"
        )
        weights = [1.0, *[self._own.auxiliary_weight] * (len(outputs) - 1)]
        loss_of = functools.partial(
            weighted_cross_entropy,
            labels=examples["label_map"],
            weights=examples["weight"],
            class_weights=self._class_weights,
            adjust_logits=self._own.adjust_logits,
        )
        losses = [w * loss_of(logits) for w, logits in zip(weights, outputs, strict=True)]
        return functools.reduce(jnp.add, losses), stats

    # Evaluation

    def measure(
        self, functions: ModelFunctions, params: FlatArrays, stats: FlatArrays, batch: Batch
    ) -> dict[str, Any]:
        """Return areas, and the predicted classes of each row at the size of its labels."""
        images = self._prepared(batch["image"], batch["size"])
        logits = functions.evaluate(params, stats, images)
        labels = batch["label_map"]
        predicted = predict_classes(
            logits,
            input_size=(images.shape[1], images.shape[2]),
            image_size=batch["size"],
            original_size=batch["original_size"],
            canvas=(labels.shape[1], labels.shape[2]),
        )
        counted = jnp.where(batch["mask"][:, None, None], labels, IGNORED_LABEL)
        return {
            "areas": areas_of(predicted, counted, num_classes=self._num_classes),
            "predicted": predicted,
            "position": jnp.where(batch["mask"], batch["position"], -1),
            "original_size": batch["original_size"],
        }

    def add(self, total: Any, part: Any) -> Any:
        """Add areas, and keep predictions: all that are to be written, or some for pictures."""
        total, part = (self._compressed(one) for one in (total, part))
        kept = total["maps"] | part["maps"]
        if not self._own.write_label_maps:
            kept = {n: kept[n] for n in sorted(kept, key=_scattered)[:KEPT_PICTURES]}
        areas = Areas(*map(np.add, total["areas"], part["areas"]))
        return {"areas": areas, "maps": kept}

    def means(self, total: Any) -> dict[str, float]:
        """Return mIoU, mAcc and aAcc, in [0, 1]."""
        areas = self._compressed(total)["areas"]
        scores, self._absent = scores_of(areas), absent_classes(areas, self._class_names)
        return {
            "mIoU": scores.mean_iou,
            "mAcc": scores.mean_accuracy,
            "aAcc": scores.all_accuracy,
        }

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the scores in percent, and which classes the last of ``means`` left out."""
        shown = ", ".join(f"{name} {100 * value:.2f} %" for name, value in means.items())
        if not self._absent:
            return shown
        listed = ", ".join(self._absent[:_SHOWN_NAMES])
        more = f" and {len(self._absent) - _SHOWN_NAMES} more" * (len(self._absent) > _SHOWN_NAMES)
        return f"{shown} (not counted, since they do not occur: {listed}{more})"

    def keep_label_maps(self, total: Any, source: Examples, folder: Path) -> int:
        """Write the predictions that were kept as PNG files of the set's ids; return how many.

        Args:
          total: the results of all batches.
          source: the examples that they are about.
          folder: where files go; each has the name of its image, and its position too where
            another image has the same.
        """
        maps = self._compressed(total)["maps"]
        folder.mkdir(parents=True, exist_ok=True)
        stems = {p: file_stem(Path(source.path(p).replace("#", "_")).stem) for p in maps}
        counts = Counter(stems.values())
        first_id = cast(LabelMapSource, source).first_id
        for position, data in maps.items():
            name = stems[position]
            name = name if counts[name] == 1 else f"{name}.{position}"
            if first_id:
                data = png_of(read_label_map(data) + first_id)
            write_whole(folder / f"{name}.png", data)
        return len(maps)

    def keep_predictions(
        self, total: Any, source: Examples, folder: Path
    ) -> Mapping[str, np.ndarray]:
        """Write label maps where they are asked for, and return a sheet of some."""
        if self._own.write_label_maps:
            self.keep_label_maps(total, source, folder)
        maps = self._compressed(total)["maps"]
        shown = {n: maps[n] for n in sorted(maps, key=_scattered)[:KEPT_PICTURES]}
        sheet = segmentation_sheet(shown, cast(LabelMapSource, source))
        return {"predictions": np.asarray(sheet)}

    def _prepared(self, images: Array, size: Array) -> Float[Array, "batch height width 3"]:
        """Normalise; the padding is zero afterwards, as in the reference."""
        rows, columns = jnp.arange(images.shape[1]), jnp.arange(images.shape[2])
        is_inside = (rows[None, :, None] < size[:, 0, None, None]) & (
            columns[None, None, :] < size[:, 1, None, None]
        )
        normalised = normalise(images, mean=self._mean, std=self._std)
        return jnp.where(is_inside[..., None], normalised, 0.0)

    def _compressed(self, part: Any) -> dict[str, Any]:
        """Return a result of ``measure`` with sums of 64 bits and its maps as PNG files."""
        if "maps" in part:
            return cast(dict[str, Any], part)
        rows = np.flatnonzero(part["position"] >= 0).tolist()
        if not self._own.write_label_maps:
            rows = sorted(rows, key=lambda row: _scattered(int(part["position"][row])))
            rows = rows[:KEPT_PICTURES]
        maps = {}
        for row in rows:
            height, width = part["original_size"][row].tolist()
            maps[int(part["position"][row])] = png_of(part["predicted"][row, :height, :width])
        areas = Areas(*(np.asarray(area, np.int64) for area in part["areas"]))
        return {"areas": areas, "maps": maps}


def weighted_cross_entropy(
    logits: Float[Array, "batch map_height map_width classes"],
    labels: UInt8[Array, "batch height width"],
    weights: Float[Array, " batch"],
    *,
    class_weights: Sequence[float] | None = None,
    adjust_logits: bool = False,
) -> Float[Array, ""]:
    """Return the sum over all labelled pixels of cross-entropy times the weight of their row.

    Args:
      logits: of any size; they are brought to that of the labels.
      labels: classes, 255 for none.
      weights: of every row; rows of weight 0 add nothing, whatever they hold.
      class_weights: further factors, by the label of a pixel; None is one for all.
      adjust_logits: whether the logarithm of its weight is added to each class's logit. The least
        loss is then where the softmax of the logits as they are is the probability of the classes,
        without weights: these say what to learn first, and not what to predict more often
        (arXiv 2007.07314 adjusts logits by the logarithm of the classes' frequencies).
    """
    resized = resize_bilinear(logits, (labels.shape[1], labels.shape[2]))
    if class_weights is not None and adjust_logits:
        shift = jnp.log(jnp.asarray(class_weights, jnp.float32))
        resized += along_channels(shift, resized)
    is_counted = (labels != IGNORED_LABEL) & (weights[:, None, None] > 0)
    # A masked row may hold anything, and zero times infinity is not zero, nor is its gradient.
    resized = jnp.where(is_counted[..., None], resized, 0.0)
    # Compared, not looked up: on CPU one loop replaces a gather and its scattered gradient.
    is_own = labels[..., None] == jnp.arange(resized.shape[-1])
    losses = jax.nn.logsumexp(resized, axis=-1) - jnp.sum(resized, axis=-1, where=is_own)
    if class_weights is not None:
        factors = jnp.asarray(class_weights, jnp.float32)
        losses *= jnp.sum(jnp.where(is_own, factors, 0.0), axis=-1)
    summed = jnp.sum(jnp.where(is_counted, losses, 0.0), axis=(1, 2))
    return jnp.sum(weights * summed)


def predict_classes(
    logits: Float[Array, "batch map_height map_width classes"],
    *,
    input_size: tuple[int, int],
    image_size: Int[Array, "batch 2"],
    original_size: Int[Array, "batch 2"],
    canvas: tuple[int, int],
) -> UInt8[Array, "batch canvas_height canvas_width"]:
    """Return the class of every pixel of images in their original size.

    Args:
      logits: of padded images.
      input_size: height and width of the padded images.
      image_size: of what is image in them.
      original_size: of the images before they were resized.
      canvas: height and width of the result; what lies beyond an image's own size means nothing.
    """
    _, height, width, _ = logits.shape

    def weights_along(axis: int, given: int) -> Array:
        to_input = axis_weights(input_size[axis], given)
        to_original = jax.vmap(
            lambda wanted, source: axis_weights(
                canvas[axis], input_size[axis], wanted=wanted, source=source
            )
        )(original_size[:, axis], image_size[:, axis])
        return jnp.einsum("bon,ni->boi", to_original, to_input, precision=lax.Precision.HIGHEST)

    down, across = weights_along(0, height), weights_along(1, width)
    # Some rows at a time: all logits in the size of a photo are too many.
    blocks = -(-canvas[0] // _ROWS)
    padded = jnp.pad(down, ((0, 0), (0, blocks * _ROWS - canvas[0]), (0, 0)))
    by_block = padded.reshape(down.shape[0], blocks, _ROWS, height).swapaxes(0, 1)

    def classes_of(rows: Array) -> Array:
        highest = lax.Precision.HIGHEST
        part = jnp.einsum("boh,bhwc->bowc", rows, logits, precision=highest)
        part = jnp.einsum("bpw,bowc->bopc", across, part, precision=highest)
        return jnp.argmax(part, axis=-1).astype(jnp.uint8)

    found = lax.map(classes_of, by_block)
    whole = found.swapaxes(0, 1).reshape(down.shape[0], blocks * _ROWS, canvas[1])
    return whole[:, : canvas[0]]


def png_of(label_map: np.ndarray) -> bytes:
    """Return the bytes of a PNG file of ids."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(label_map, np.uint8)).save(file, format="PNG")
    return file.getvalue()


def _scattered(position: int) -> int:
    """Return a number that orders positions in a way that looks random and is not."""
    return position * 2654435761 % 2**32


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return int(height), int(width)
