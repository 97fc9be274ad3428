"""Image classification: the reference recipe's augmentation and loss, top-1 and top-5 accuracy."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from lska_jax.data.augment import EvalTransform, TrainTransform
from lska_jax.data.class_counts import BalancedDraw, count_classes
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import HostBatch
from lska_jax.data.mixing import MixingSpec, mix, normalise, random_erasing
from lska_jax.data.opening import open_source
from lska_jax.data.sources import BrokenImage, Examples, Source, SourceFacts
from lska_jax.models.build import config_of
from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.tasks.accuracy import EvalSums, eval_sums
from lska_jax.tasks.class_order import in_order, positions_in
from lska_jax.tasks.classification_check import BALANCED, check_facts, given_weights
from lska_jax.tasks.distillation import TEACHER, Teacher, teacher_losses
from lska_jax.tasks.losses import balanced_weights, softmax_losses
from lska_jax.tasks.task import Batch, Best, Task
from lska_jax.tasks.views import TEN, average_views
from lska_jax.weights.class_names import readable_names

_PROBED_EXAMPLES = 64
# The first five of as many classes are all there are.
_TOP = 5

# Images (B, H, W, C), targets (B, K) that sum to one, weights (B,) that sum to one over the batch,
# and the teacher's logits (B, K) where there is one.
Mixed = tuple[jax.Array, ...]


class Classification(Task):
    """Images with one class each; targets are mixed and smoothed as timm 0.4.12 does."""

    best = Best("top1")
    is_multi_label = False

    def __init__(self, config: ConfigDict):
        super().__init__(config)
        data = config.data
        self._mean, self._std = tuple(data.mean), tuple(data.std)
        self._mixing = MixingSpec(
            mixup_alpha=data.mixup_alpha,
            cutmix_alpha=data.cutmix_alpha,
            switch_prob=data.switch_prob,
            label_smoothing=config.training.label_smoothing,
        )
        training = config.training
        self._gamma = training.focal_gamma if training.loss == "focal" else 0.0
        given = given_weights(training.class_weights)
        self._class_weights = None if given is None else np.asarray(given, np.float32)
        self._teacher: Teacher | None = None
        network = config_of(config.model.to_dict())
        self._has_distillation_token = getattr(network, "is_distilled", False)

    def open_split(self, *, source: str, split: str) -> Source:
        """Open one split; its classes are as many as the model's, and its labels are theirs."""
        opened = open_source(
            source,
            split=split,
            data_dir=self.config.data.data_dir or None,
            is_multi_label=self.is_multi_label,
        )
        facts = SourceFacts(len(opened.class_names), len(opened))
        check_facts(self.config, facts, f"{source} split {split!r}")
        _check_some_labels(opened)
        return opened

    def check_splits(self, train: Examples, evaluation: Examples, *, is_held_out: bool) -> None:
        """Compare the classes too; see ``Task.check_splits``."""
        names, others = (cast(Source, split).class_names for split in (train, evaluation))
        if positions_in(others, names) is None:
            different = sorted(set(names) ^ set(others))
            raise ValueError(
                f"{train.name} and {evaluation.name} have different classes: "
                f"{', '.join(different[:10])}; the class folders of both splits must be the same."
            )
        super().check_splits(train, evaluation, is_held_out=is_held_out)

    def class_names(self, examples: Examples) -> tuple[str, ...]:
        """Return the names of the classes, ImageNet's in words."""
        return readable_names(cast(Source, examples).class_names)

    def in_class_order(self, examples: Examples, names: Sequence[str], *, whose: str) -> Source:
        """Map the same names in another order; see ``Task.in_class_order``."""
        return in_order(cast(Source, examples), names, whose=whose)

    def see_training(self, examples: Examples) -> None:
        """Weigh the classes by the images that they have, where the config asks for that."""
        if self.config.training.class_weights == BALANCED:
            self._class_weights = self._balanced_weights(cast(Source, examples))

    def learn_from(self, teacher: Teacher) -> None:
        """Take a teacher's answers into the loss; see ``lska_jax.tasks.distillation``."""
        self._teacher = teacher
        self.constants = {**self.constants, TEACHER: teacher.arrays}

    def _balanced_weights(self, source: Source) -> np.ndarray:
        return balanced_weights(count_classes(source).astype(np.float64))

    def train_batches(self, source: Examples, **loading: Any) -> Generator[HostBatch, None, None]:
        """Draw every class as often, where the config asks for that; see ``Task``."""
        if self.config.data.sampling == BALANCED:
            loading["draw"] = BalancedDraw.of(cast(Source, source))
        return super().train_batches(source, **loading)

    def train_reader(self) -> LabelledImages:
        """Return the config's host-side augmentation."""
        return LabelledImages(train_transform(self.config), num_labels=self._num_labels)

    def eval_reader(self) -> LabelledImages:
        """Return the config's evaluation preprocessing."""
        return LabelledImages(eval_transform(self.config), num_labels=self._num_labels)

    @property
    def _num_labels(self) -> int | None:
        return self.config.model.num_classes if self.is_multi_label else None

    def prepare(self, batch: Batch, key: jax.Array) -> tuple[Mixed, jax.Array]:
        """Normalise, erase and mix; weights are 1 / number of usable rows, and 0 for the others."""
        erase_key, mix_key, model_key = jax.random.split(key, 3)
        images = normalise(batch["image"], mean=self._mean, std=self._std)
        images = random_erasing(images, erase_key, probability=self.config.data.erase_prob)
        images, targets = mix(
            images,
            batch["label"],
            batch["mask"],
            mix_key,
            num_classes=self.config.model.num_classes,
            spec=self._mixing,
        )
        weights = batch["mask"] / jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
        if self._teacher is None:
            return (images, targets, weights), model_key
        told = self._teacher.logits(images, cast(Any, batch[TEACHER]))
        return (images, targets, weights, told), model_key

    def loss(
        self,
        functions: ModelFunctions,
        params: FlatArrays,
        stats: FlatArrays,
        examples: Mixed,
        key: jax.Array,
    ) -> tuple[jax.Array, FlatArrays]:
        """Return the weighted cross-entropy of soft targets, and the new statistics."""
        images, targets, weights, *told = examples
        # Of a distilled DeiT each token learns from its own: the labels, and the teacher.
        method = "logits_of_each" if told and self._has_distillation_token else "__call__"
        given, stats = functions.train(params, stats, images, key=key, method=method)
        logits, *taught = given if method != "__call__" else (given,)
        # A masked row may hold anything, and zero times infinity is not zero, nor is its gradient.
        usable = weights[:, None] > 0
        logits, *taught = (
            jnp.where(usable, each.astype(jnp.float32), 0.0) for each in (logits, *taught)
        )
        losses = self._losses(logits, targets)
        if told:
            training = self.config.training
            from_teacher = teacher_losses(
                taught[0] if taught else logits,
                told[0],
                kind=training.distillation,
                temperature=training.distillation_temperature,
            )
            share = training.distillation_weight
            losses = (1.0 - share) * losses + share * from_teacher
        return jnp.sum(weights * losses), stats

    def _losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Return the loss (B,) of every example."""
        return softmax_losses(logits, targets, gamma=self._gamma, class_weights=self._class_weights)

    def measure(
        self, functions: ModelFunctions, params: FlatArrays, stats: FlatArrays, batch: Batch
    ) -> EvalSums:
        """Return how many rows were counted, ranked first and among the first five, and losses."""
        logits = self._evaluate(functions, params, stats, batch["image"])
        return eval_sums(logits, batch["label"], batch["mask"])

    def _evaluate(
        self,
        functions: ModelFunctions,
        params: FlatArrays,
        stats: FlatArrays,
        pixels: jax.Array,
    ) -> jax.Array:
        """Return the logits of images, over the views that the config asks for."""

        def logits_of(view: jax.Array) -> jax.Array:
            images = normalise(view, mean=self._mean, std=self._std)
            return functions.evaluate(params, stats, images)

        return average_views(
            logits_of,
            pixels,
            views=self.config.data.views,
            is_multi_label=self.is_multi_label,
        )

    def means(self, total: EvalSums) -> dict[str, float]:
        """Return top1 and, of more than five classes, top5 in [0, 1], and loss."""
        means = total.means()
        if self.config.model.num_classes <= _TOP:
            del means["top5"]
        return means

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the accuracies in percent, and the loss."""
        shown = [name for name in ("top1", "top5") if name in means]
        accuracies = [f"{name} {100 * means[name]:.2f} %" for name in shown]
        return ", ".join([*accuracies, f"loss {means['loss']:.4g}"])


def _check_some_labels(source: Source) -> None:
    """Read examples all over a source: unlabelled splits show before anything is compiled."""
    for index in np.linspace(0, len(source) - 1, _PROBED_EXAMPLES).astype(int).tolist():
        try:
            label = np.ravel(source[index].label)
        except BrokenImage:
            # Counted with the other broken images, once it is due.
            continue
        if not np.all((label >= 0) & (label < len(source.class_names))):
            raise ValueError(
                f"{source.path(index)} has label {label[0]}; {source.name} has classes 0 to "
                f"{len(source.class_names) - 1}. Choose a labelled split, or repair the data."
            )


def train_transform(config: ConfigDict) -> TrainTransform:
    """Return a config's augmentation on the host: crop, flip, RandAugment."""
    data = config.data
    return TrainTransform(
        image_size=data.image_size,
        channels=config.model.in_channels,
        crop=data.crop,
        crop_scale=_pair(data.crop_scale),
        crop_ratio=_pair(data.crop_ratio),
        pad=data.pad,
        hflip_prob=data.hflip_prob,
        rand_augment=data.rand_augment,
        interpolation=data.train_interpolation,
        mean=tuple(data.mean),
        max_pixels=data.max_image_pixels,
        scaled_decoding=data.scaled_decoding,
    )


def eval_transform(config: ConfigDict) -> EvalTransform:
    """Return a config's preprocessing of evaluation images on the host."""
    data = config.data
    return EvalTransform(
        image_size=data.image_size,
        channels=config.model.in_channels,
        crop_pct=data.crop_pct,
        interpolation=data.interpolation,
        crop_mode=data.crop_mode,
        max_pixels=data.max_image_pixels,
        has_five_crops=data.views == TEN,
    )


def _pair(bounds: Sequence[float]) -> tuple[float, float]:
    low, high = bounds
    return float(low), float(high)
