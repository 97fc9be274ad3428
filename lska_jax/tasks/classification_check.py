"""The check of what classification reads of a config, and of its data; without jax."""

import math

from ml_collections import ConfigDict

from lska_jax.data.sources import SourceFacts
from lska_jax.running.value_checks import check_choice, check_entries, check_range, collect

BALANCED = "balanced"
SAMPLINGS = ("uniform", BALANCED)
VIEWS = ("one", "flip", "ten")
LOSSES = ("cross_entropy", "focal")


def check_config(config: ConfigDict, problems: list[str]) -> None:
    """Add a sentence for every value that classification cannot work with."""
    check_images(config, problems)
    data = config.data
    smoothing = config.training.label_smoothing
    check_range(problems, "training.label_smoothing", smoothing, low=0, below=1)
    check_choice(problems, "training.loss", config.training.loss, LOSSES)
    check_range(problems, "training.focal_gamma", config.training.focal_gamma, low=0)
    check_choice(problems, "data.views", data.views, VIEWS)
    if data.views == "ten" and math.floor(data.image_size / data.crop_pct) <= data.image_size:
        problems.append(
            f"data.views='ten' cuts corners out of what data.crop_pct={data.crop_pct} leaves "
            "around the image, which is nothing; lower it, as to 0.875, or take data.views='flip'."
        )
    check_choice(problems, "data.sampling", data.sampling, SAMPLINGS)
    if data.multi_label and data.sampling == BALANCED:
        problems.append(
            "data.sampling='balanced' draws classes, and with data.multi_label an image has any "
            "number of them; training.class_weights='balanced' weighs them instead."
        )
    _check_distillation(config, problems)
    check_weights(problems, config.training.class_weights, config.model.num_classes)


def check_images(config: ConfigDict, problems: list[str]) -> None:
    """Add a sentence for every value about images that a network without a dense head reads."""
    from lska_jax.data.augment import CROP_MODES, CROPS
    from lska_jax.data.rand_augment import INTERPOLATIONS, parse_rand_augment

    data = config.data
    if config.model.get("head"):
        problems.append(
            f"model.head.name={config.model.head.name!r} classifies no images; leave the head out, "
            "or choose the task that it is for."
        )
    check_range(problems, "model.num_classes", config.model.num_classes, low=1)
    check_source_name(problems, "data.source", data.source)
    channels = config.model.in_channels
    if channels not in (1, 3):
        problems.append(f"model.in_channels={channels}: images are read with 1 or 3 channels.")
    for name in ("mean", "std"):
        if len(data[name]) != channels:
            problems.append(
                f"data.{name}={data[name]} needs one value for each of the "
                f"{channels} channels (model.in_channels)."
            )
    check_entries(problems, "data.mean", data.mean, low=0, high=1)
    check_entries(problems, "data.std", data.std, above=0)
    check_range(problems, "data.image_size", data.image_size, low=1)
    check_range(problems, "data.max_image_pixels", data.max_image_pixels, low=1)
    check_range(problems, "data.crop_pct", data.crop_pct, low=0.05, high=1)
    check_range(problems, "data.pad", data.pad, low=0, high=data.image_size)
    if data.pad and data.crop != "padded":
        problems.append(f"data.pad={data.pad} works with data.crop='padded', not {data.crop!r}.")
    if data.scaled_decoding and data.crop != "random_resized":
        problems.append(
            f"data.scaled_decoding works with data.crop='random_resized', not {data.crop!r}."
        )
    check_choice(problems, "data.crop", data.crop, CROPS)
    check_choice(problems, "data.crop_mode", data.crop_mode, CROP_MODES)
    check_choice(problems, "data.interpolation", data.interpolation, ("bilinear", "bicubic"))
    check_choice(problems, "data.train_interpolation", data.train_interpolation, [*INTERPOLATIONS])
    for name in ("hflip_prob", "erase_prob", "switch_prob"):
        check_range(problems, f"data.{name}", data[name], low=0, high=1)
    for name in ("mixup_alpha", "cutmix_alpha"):
        check_range(problems, f"data.{name}", data[name], low=0)
    for name, high in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
        count = len(problems)
        check_entries(problems, f"data.{name}", data[name], above=0, high=high)
        if len(problems) == count and (len(data[name]) != 2 or data[name][0] > data[name][1]):
            problems.append(f"data.{name}={data[name]} must be (low, high) with low <= high.")
    if data.rand_augment:
        collect(problems, lambda: parse_rand_augment(data.rand_augment))


def given_weights(text: str) -> tuple[float, ...] | None:
    """Return the weights that ``training.class_weights`` lists; None where it lists none.

    Raises:
      ValueError: it is no list of numbers.
    """
    if text in ("", BALANCED):
        return None
    return tuple(float(part) for part in text.split(","))


def _check_distillation(config: ConfigDict, problems: list[str]) -> None:
    training = config.training
    check_choice(problems, "training.distillation", training.distillation, ("soft", "hard"))
    weight, temperature = training.distillation_weight, training.distillation_temperature
    check_range(problems, "training.distillation_weight", weight, low=0, high=1)
    check_range(problems, "training.distillation_temperature", temperature, above=0, high=1e6)
    if training.teacher and config.data.multi_label:
        problems.append(
            f"training.teacher={training.teacher!r} teaches one label an image, and "
            "data.multi_label is on. Leave one of them out."
        )


def check_weights(
    problems: list[str], text: str, num_classes: int, *, can_balance: bool = True
) -> None:
    """Add a sentence if ``training.class_weights`` does not fit the classes.

    Args:
      problems: what was found so far.
      text: the value.
      num_classes: of the model.
      can_balance: whether weights can be counted, "balanced".
    """
    allowed = (
        f"Allowed: {f'{BALANCED!r}, ' if can_balance else ''}nothing, or {num_classes} numbers "
        "above 0 with commas, in the order of the classes."
    )
    if text == BALANCED and not can_balance:
        problems.append(f"training.class_weights={text!r}: pixels are not counted. {allowed}")
    try:
        weights = given_weights(text)
    except ValueError:
        problems.append(f"training.class_weights={text!r} is not understood. {allowed}")
        return
    if weights and (
        len(weights) != num_classes or not all(0 < weight < math.inf for weight in weights)
    ):
        problems.append(f"training.class_weights={text!r} does not fit. {allowed}")


def check_source_name(problems: list[str], name: str, source: str) -> None:
    """Check that a source is named as ``lska_jax.data.opening`` opens it."""
    if not (source in ("digits", "drawings") or source.startswith(("folder:", "csv:", "tfds:"))):
        problems.append(
            f"{name}={source!r} is unknown; allowed: digits, drawings, folder:PATH, "
            "csv:PATH, tfds:NAME."
        )


def inspect_split(config: ConfigDict, source: str, split: str) -> SourceFacts:
    """Count the classes and examples of a split; see ``lska_jax.data.opening.inspect_source``."""
    from lska_jax.data.opening import inspect_source

    return inspect_source(
        source,
        split=split,
        data_dir=config.data.data_dir or None,
        is_multi_label=config.data.multi_label,
    )


def check_facts(config: ConfigDict, facts: SourceFacts, where: str) -> None:
    """Check that the model has one output for every class of a split.

    Args:
      config: of the run.
      facts: about the split.
      where: source and split, for the message.

    Raises:
      ValueError: the counts differ.
    """
    wanted, there = config.model.num_classes, facts.num_classes
    if wanted != there:
        raise ValueError(
            f"model.num_classes={wanted}, but {where} has {there} classes; pass "
            f"--config.model.num_classes={there}."
        )
