"""A config for a set of images that has none: every setting chosen, and said with its reason.

The choices are for small sets, from a hundred images to some ten thousand. They are the keys of
``training.config`` and no others: the config is one that a file could have made.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from lska_jax.data.csv_source import LABEL_SEPARATOR, holds_several_labels
from lska_jax.data.image_file import read_image
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.opening import open_source, source_of
from lska_jax.data.sources import BrokenImage, MissingSplit, Source, share_examples
from lska_jax.data.split_slices import seed_words
from lska_jax.models.build import abstract_model, config_of
from lska_jax.models.checks import least_side
from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing, family_of, model_entry, section_for
from lska_jax.tasks.table import DEFAULT_TASK, MASKED_IMAGES
from lska_jax.training.config import base_config, model_section
from lska_jax.training.masked_recipe import use_masked_images

DEFAULT_MODEL = "van_lska_tiny"
HELD_OUT = 0.2
_PROBED_IMAGES = 64
_SHOWN_CLASSES = 20
# The last map has at least as many pixels a side: on fewer a large kernel sees nothing but zeros.
_LEAST_LAST_MAP = 4
# Images up to this size are moved by some pixels, not cropped: a crop of them shows too little.
_SMALL_IMAGE = 64
_IMBALANCE = 4
_LAYER_DECAY = 0.75


class Wishes(NamedTuple):
    """What a person asks for; None leaves a choice to ``config_for_images``.

    Attributes:
      data: a folder, a tar or CSV file, the name of a TFDS set, or a source's name.
      model: one of ``list_models()``.
      start: where weights to start from are; "" trains from scratch.
      epochs: how often the training images are seen.
      held_out: share of every class that is held out, where the data has no split for it.
      seed: of the draw of what is held out, and of the run.
      image_size: side of the images that the network sees, in pixels.
      batch_size: images a step.
      learning_rate: at its highest.
      task: "classification", or "masked_images", which learns from the images alone.
    """

    data: str
    model: str | None = None
    start: str = ""
    epochs: int | None = None
    held_out: float | None = None
    seed: int | None = None
    image_size: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    task: str = DEFAULT_TASK


class Chosen(NamedTuple):
    """A config, and what was chosen.

    Attributes:
      config: complete; locked.
      remarks: what was chosen and why, one line each.
    """

    config: ConfigDict
    remarks: tuple[str, ...]


def config_for_images(wishes: Wishes) -> Chosen:
    """Return a config for a set of images, for ``config_check.check_config``.

    Raises:
      ValueError: the data, the model or the weights are not there, or do not go together.
      FileNotFoundError: there are no such weights.
    """
    if wishes.task not in (DEFAULT_TASK, MASKED_IMAGES):
        raise ValueError(
            f"--task {wishes.task} needs a config file; without one: {DEFAULT_TASK}, "
            f"{MASKED_IMAGES}."
        )
    config = base_config()
    remarks: list[str] = []
    if wishes.seed is not None:
        config.training.seed = wishes.seed
    train = _choose_data(config, wishes, remarks)
    prepared = _choose_model(config, wishes, num_classes=len(train.class_names), remarks=remarks)
    _choose_image_size(config, wishes, prepared, train, remarks)
    _choose_batches(config, wishes, len(train), remarks)
    _choose_optimizer(config, wishes, remarks)
    _choose_augmentation(config, remarks)
    if wishes.task == MASKED_IMAGES:
        use_masked_images(config)
        remarks.append(
            "Task: masked patches are painted from the rest of each image; labels are not read. "
            "Then train with --from this run."
        )
    return Chosen(config.lock(), tuple(remarks))


def _choose_data(config: ConfigDict, wishes: Wishes, remarks: list[str]) -> Source:
    held_out = HELD_OUT if wishes.held_out is None else wishes.held_out
    if not 0 < held_out < 1:
        raise ValueError(f"--val {held_out:g} must be above 0 and below 1, as in --val 0.2.")
    spec = source_of(wishes.data)
    kind, _, place = spec.partition(":")
    is_multi_label = kind == "csv" and holds_several_labels(place)
    try:
        evaluation = _held_out_split(spec, is_multi_label=is_multi_label)
    except ValueError as error:
        if kind != "tfds" or spec == wishes.data:
            raise
        raise ValueError(
            f"There is no folder or file {wishes.data} here, so it was taken for a TFDS set. "
            f"{error}"
        ) from error
    config.data.source = spec
    if is_multi_label:
        config.data.multi_label = True
        remarks.append(
            f"Labels: any number an image, as there are {LABEL_SEPARATOR!r} between some; the mean "
            "average precision decides, not top-1."
        )
    config.data.train_split = "train"
    if evaluation is None:
        share = f"{100 * (1 - held_out):g}%"
        by_name = not spec.startswith("tfds:")
        drawn = seed_words(wishes.seed or 0) if by_name else ""
        config.data.train_split = f"train[:{share}{drawn}]"
        config.data.eval_split = f"train[{share}:{drawn}]"
        how = f"{100 * held_out:g} % of every class, drawn by file names and the seed"
        how += f" {wishes.seed or 0}; --val and --seed change that"
        if not by_name:
            how = f"the last {100 * held_out:g} %; --val changes that"
    elif wishes.held_out is not None:
        raise ValueError(
            f"--val {held_out:g} would cut off a part of the training images, but {spec} has a "
            f"split {evaluation} of its own. Leave --val out."
        )
    else:
        config.data.eval_split = evaluation
        how = "a split of its own"
    train, held = (
        open_source(spec, split=split, is_multi_label=is_multi_label)
        for split in (config.data.train_split, config.data.eval_split)
    )
    remarks.append(
        f"Data: {spec}, {len(train):,} images to train on and {len(held):,} held out ({how})."
    )
    remarks += _describe_classes(train, held)
    return train


def _held_out_split(spec: str, *, is_multi_label: bool) -> str | None:
    """Return the split to evaluate on; None where there is none but the training images."""
    train = open_source(spec, split="train", is_multi_label=is_multi_label)
    for split in ("validation", "test"):
        try:
            other = open_source(spec, split=split, is_multi_label=is_multi_label)
        except MissingSplit:
            continue
        # Without splits every split is all of the images.
        return None if share_examples(train, other) else split
    return None


def _describe_classes(train: Source, held: Source) -> list[str]:
    names = train.class_names
    more = f", ... and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
    labels, held_labels = getattr(train, "labels", None), getattr(held, "labels", None)
    if labels is None or held_labels is None:
        return [f"Classes: {len(names)}: {', '.join(names[:_SHOWN_CLASSES])}{more}."]
    counts, held_counts = (_count(found, len(names)) for found in (labels, held_labels))
    each = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True)]
    shown = ", ".join(each[:_SHOWN_CLASSES])
    lines = [f"Classes: {len(names)}, with their training images: {shown}{more}."]
    without = [name for name, n in zip(names, counts, strict=True) if not n]
    without += [
        name for name, n in zip(names, held_counts, strict=True) if not n and name not in without
    ]
    if without:
        lines.append(
            f"Without an image to train on or to evaluate on: {', '.join(without)}. Give these "
            "classes more images."
        )
    elif counts.max() > _IMBALANCE * counts.min():
        lines.append(
            f"The largest class has {counts.max() / counts.min():.0f} times the images of the "
            "smallest: --config.training.class_weights=balanced weighs them alike."
        )
    return lines


def _count(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the images of each class, of labels (N,) or of rows (N, K) of 0 and 1."""
    if labels.ndim > 1:
        return np.sum(labels, axis=0)
    return np.bincount(labels, minlength=num_classes)


def _choose_model(
    config: ConfigDict, wishes: Wishes, *, num_classes: int, remarks: list[str]
) -> Preprocessing:
    """Set the model, and what to start from; return how its images are prepared."""
    if not wishes.start:
        name = wishes.model or DEFAULT_MODEL
        entry = model_entry(name)
        config.model = model_section(name, num_classes=num_classes, drop_path_rate=0.1)
        remarks.append(
            f"Model: {name}, from random numbers. With few images --from a trained model is better "
            "by far."
        )
        return entry.preprocessing
    from lska_jax.training.model_places import read_model_facts

    facts = read_model_facts(wishes.start)
    if head := head_of(facts.config):
        raise ValueError(
            f"--from {wishes.start}: it is no classifier but {head.title}. Give weights of a "
            "classifier."
        )
    section = section_for(facts.config)
    if wishes.model not in (None, section["name"], facts.name):
        raise ValueError(
            f"--model {wishes.model}: the weights in {wishes.start} are those of "
            f"{facts.description}. Leave --model out, or give other weights."
        )
    section |= {"num_classes": num_classes, "drop_path_rate": 0.1}
    config.model = model_section(section.pop("name"), **section)
    config.training.finetune_from = wishes.start
    remarks.append(f"Model: {facts.description}, from {wishes.start}.")
    return facts.preprocessing


def _choose_image_size(
    config: ConfigDict,
    wishes: Wishes,
    prepared: Preprocessing,
    train: Source,
    remarks: list[str],
) -> None:
    data = config.data
    width, height = _typical_size(train)
    side = min(width, height)
    if wishes.image_size is not None:
        size, why = wishes.image_size, "as asked for"
    elif wishes.start:
        size, why = prepared.image_size, "what the weights were trained at"
    else:
        unit = 8 if side < _SMALL_IMAGE else 32
        size = min(prepared.image_size, -(-side // unit) * unit)
        why = "no more than the images have" if size < prepared.image_size else "the model's own"
    size = _fit_network(config, size, is_fresh=not wishes.start)
    data.image_size = size
    for name in ("mean", "std", "crop_pct", "crop_mode", "interpolation"):
        setattr(data, name, getattr(prepared, name))
    if len(prepared.mean) != config.model.in_channels:
        adapted = prepared.for_channels(config.model.in_channels)
        data.mean, data.std = adapted.mean, adapted.std
    if size <= _SMALL_IMAGE:
        # Cutting off a border would throw away what little there is.
        data.crop_pct = 1.0
    small = ""
    if size >= 2 * side and wishes.image_size is None:
        small = f" --image_size {max(side, 32)} takes a fraction of the time."
    remarks.append(f"Image size: {size} pixels, {why}; the images have {width} x {height}.{small}")


def _fit_network(config: ConfigDict, size: int, *, is_fresh: bool) -> int:
    """Bring the size to one that the network takes, and a fresh network's stride to the size."""
    section = config.model
    network = config_of(section.to_dict())
    stride_field = next((name for name in ("stem_stride", "patch_size") if name in section), None)
    if is_fresh and stride_field and size < 128:
        infos = abstract_model(network).feature_info
        stride = [info.stride for info in infos if info.stride][-1]
        stem = getattr(network, stride_field)
        while stem > 1 and stem % 2 == 0 and size // stride < _LEAST_LAST_MAP:
            stem, stride = stem // 2, stride // 2
        section[stride_field] = stem
    if is_fresh and "image_size" in section:
        section.image_size = size
    network = config_of(section.to_dict())
    multiple = family_of(network).image_multiple(vars(network))
    return max(-(-size // multiple) * multiple, -(-least_side(network) // multiple) * multiple)


def _typical_size(source: Source) -> tuple[int, int]:
    """Return the median width and height of some images all over a source."""
    sizes = []
    for index in np.linspace(0, len(source) - 1, _PROBED_IMAGES).astype(int).tolist():
        image = source[index].image
        try:
            if isinstance(image, np.ndarray):
                sizes.append((image.shape[1], image.shape[0]))
            else:
                sizes.append(read_image(image, lambda opened: opened.size, max_pixels=MAX_PIXELS))
        except BrokenImage:
            # Said when it is read for training.
            continue
    if not sizes:
        raise ValueError(f"None of {_PROBED_IMAGES} images of {source.name} can be read.")
    width, height = np.median(np.array(sizes), axis=0)
    return int(width), int(height)


def _choose_batches(
    config: ConfigDict, wishes: Wishes, num_images: int, remarks: list[str]
) -> None:
    training = config.training
    # At least eight steps an epoch where there are enough images for batches of eight.
    largest = 64 if wishes.start else 128
    size = wishes.batch_size or _power_of_two(num_images // 8, low=min(8, num_images), high=largest)
    training.batch_size = size
    training.eval_batch_size = max(size, 64)
    steps_per_epoch = max(1, num_images // size)
    wanted = 1_000 if wishes.start else 5_000
    fewest, most = (10, 50) if wishes.start else (20, 300)
    epochs = wishes.epochs or min(most, max(fewest, math.ceil(wanted / steps_per_epoch)))
    optimizer = config.optimizer
    optimizer.epochs = epochs
    optimizer.warmup_epochs = min(5, epochs // 10, epochs - 1)
    optimizer.cooldown_epochs = 0
    optimizer.schedule_by = "step"
    training.eval_every_epochs = max(1, epochs // 50)
    training.log_every_steps = min(50, steps_per_epoch)
    steps = epochs * steps_per_epoch
    # An average over a tenth of the run: over more it would still hold the start.
    training.ema_decay = round(1 - 10 / steps, 4) if steps >= 1_000 else 0.0
    average = f"decay {training.ema_decay}" if training.ema_decay else "off: the run is too short"
    remarks.append(
        f"Batch size {size}, {steps_per_epoch} steps an epoch; epochs: {epochs}, {steps:,} steps, "
        f"{optimizer.warmup_epochs} of the epochs warm-up. Averaged weights: {average}."
    )


def _power_of_two(value: int, *, low: int, high: int) -> int:
    return max(low, min(high, 2 ** max(0, value.bit_length() - 1)))


def _choose_optimizer(config: ConfigDict, wishes: Wishes, remarks: list[str]) -> None:
    optimizer = config.optimizer
    # What is known of layers and their rates is known of networks for larger images; a small one
    # learned far more at four times the rate, and more yet with all layers alike.
    is_small = config.data.image_size <= _SMALL_IMAGE
    top = (2e-3 if is_small else 5e-4) if wishes.start else 1e-3
    # Adam's rate goes with the root of the batch size (Malladi and others, arXiv 2205.10287).
    scaled = top * math.sqrt(config.training.batch_size / 64)
    rate = wishes.learning_rate or float(f"{scaled:.1e}")
    optimizer.learning_rate = rate
    optimizer.min_learning_rate = min(optimizer.min_learning_rate, rate)
    optimizer.warmup_learning_rate = min(optimizer.warmup_learning_rate, rate)
    why = "as asked for" if wishes.learning_rate else f"{top:g} at 64 images, by the root of them"
    layers = ""
    if wishes.start and not is_small:
        # What lies in front is good already, and general: BEiT's way of fine-tuning.
        optimizer.layer_decay = _LAYER_DECAY
        layers = f"; each layer at {_LAYER_DECAY} of the rate of the one behind it"
    remarks.append(f"Learning rate {rate:g} ({why}), AdamW, cosine{layers}.")


def _choose_augmentation(config: ConfigDict, remarks: list[str]) -> None:
    """Few images and short runs: what needs hundreds of epochs to pay is off."""
    data = config.data
    data.mixup_alpha = data.cutmix_alpha = data.erase_prob = 0.0
    if data.image_size <= _SMALL_IMAGE:
        data.crop, data.pad, data.rand_augment = "padded", data.image_size // 8, ""
        how = f"moved by up to {data.pad} pixels"
    else:
        data.crop_scale, data.rand_augment = (0.35, 1.0), "rand-m5-mstd0.5-inc1"
        how = "crops of 35 to 100 % of the image, RandAugment of magnitude 5"
    remarks.append(
        f"Augmentation: {how}, mirrored half of the time (--config.data.hflip_prob=0 for letters "
        "and the like); no Mixup, CutMix or erasing, which pay in runs of hundreds of epochs."
    )
