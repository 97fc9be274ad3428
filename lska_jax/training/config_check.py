"""The check of a whole config, before anything heavy is imported.

A mistake costs a second, not a compile. Problems are collected, so that one message lists all.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from lska_jax.models.table import fields_of

METRIC_WRITERS = ("jsonl", "tensorboard", "wandb", "mlflow")


def check_config(config: ConfigDict) -> None:
    """Check the whole config against itself; nothing is read from disk, no device is asked.

    Raises:
      ValueError: listing every contradiction, with the value and what is allowed.
    """
    problems: list[str] = []
    for check in (_check_model, _check_data, _check_optimizer, _check_training):
        check(config, problems)
    if problems:
        raise ValueError("The config does not work:\n- " + "\n- ".join(problems))


def check_splits_differ(config: ConfigDict) -> None:
    """Check that training and evaluation name different splits; evaluation alone may use any.

    Raises:
      ValueError: they name the same.
    """
    if config.data.train_split == config.data.eval_split:
        raise ValueError(
            f"data.train_split and data.eval_split are both {config.data.eval_split!r}: evaluation "
            "would read the training images. Name another split."
        )


def check_against_devices(config: ConfigDict, *, device_count: int) -> None:
    """Check that batches and parameters split evenly over the devices and microbatches.

    Raises:
      ValueError: they do not; the message names what does.
    """
    training = config.training
    problems = []
    if device_count % training.fsdp:
        divisors = [str(n) for n in range(1, device_count + 1) if device_count % n == 0]
        problems.append(
            f"training.fsdp={training.fsdp} does not divide the {device_count} devices; "
            f"allowed: {', '.join(divisors)}."
        )
    for name, unit in (
        ("batch_size", device_count * training.gradient_accumulation),
        ("eval_batch_size", device_count),
    ):
        value = training[name]
        if value % unit:
            nearest = sorted({max(unit, value // unit * unit), (value // unit + 1) * unit})
            detail = f"{device_count} devices"
            if unit != device_count:
                detail += f" x {training.gradient_accumulation} gradient accumulation steps"
            problems.append(
                f"training.{name}={value} is not divisible by {unit} ({detail}); "
                f"nearest: {' or '.join(map(str, nearest))}."
            )
    if problems:
        raise ValueError("The config does not fit the devices:\n- " + "\n- ".join(problems))


def check_against_source(
    config: ConfigDict, *, num_classes: int, num_examples: int, split: str
) -> None:
    """Check the config against what a split of the source holds.

    Raises:
      ValueError: the class counts differ, or a batch is larger than the training split.
    """
    source = config.data.source
    if config.model.num_classes != num_classes:
        raise ValueError(
            f"model.num_classes={config.model.num_classes}, but {source} split {split!r} has "
            f"{num_classes} classes; pass --config.model.num_classes={num_classes}."
        )
    is_training_split = split == config.data.train_split != config.data.eval_split
    if is_training_split and config.training.batch_size > num_examples:
        raise ValueError(
            f"training.batch_size={config.training.batch_size} is larger than the {num_examples} "
            f"examples of {source} split {split!r}; lower it."
        )


def _collect(problems: list[str], check: Callable[[], object]) -> None:
    try:
        check()
    except (ValueError, TypeError) as error:
        problems.append(str(error))


def _check_range(
    problems: list[str],
    name: str,
    value: int | float,
    *,
    above: int | float = -math.inf,
    low: int | float = -math.inf,
    high: int | float = math.inf,
    below: int | float = math.inf,
) -> None:
    if math.isfinite(value) and low <= value <= high and above < value < below:
        return
    bounds = [f"above {above:.12g}"] if above > -math.inf else []
    bounds += [f"at least {low:.12g}"] if low > -math.inf else []
    bounds += [f"at most {high:.12g}"] if high < math.inf else []
    bounds += [f"below {below:.12g}"] if below < math.inf else []
    problems.append(f"{name}={value} must be {' and '.join(bounds) or 'finite'}.")


def _check_entries(
    problems: list[str],
    name: str,
    entries: Sequence[Any],
    *,
    is_whole: bool = False,
    **bounds: int | float,
) -> None:
    """Check each entry of a tuple, whose type a command line does not decide."""
    for position, entry in enumerate(entries):
        label = f"{name}[{position}]"
        if isinstance(entry, bool) or not isinstance(entry, int if is_whole else int | float):
            kind = "whole number" if is_whole else "number"
            problems.append(f"{label}={entry!r} must be a {kind}.")
        else:
            _check_range(problems, label, entry, **bounds)


def _check_choice(problems: list[str], name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        problems.append(f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}.")


def _check_model(config: ConfigDict, problems: list[str]) -> None:
    section = config.model
    try:
        family, fields = fields_of(section.to_dict())
    except ValueError as error:
        problems.append(f"model: {error}")
        return
    problems += [f"model.{problem}" for problem in family.check(fields)]
    _check_range(problems, "model.num_classes", section.num_classes, low=1)


def _check_data(config: ConfigDict, problems: list[str]) -> None:
    from lska_jax.data.augment import CROPS
    from lska_jax.data.rand_augment import INTERPOLATIONS, parse_rand_augment

    data = config.data
    if not (data.source == "digits" or data.source.startswith(("folder:", "tfds:"))):
        problems.append(
            f"data.source={data.source!r} is unknown; allowed: digits, folder:PATH, tfds:NAME."
        )
    channels = config.model.in_channels
    if channels not in (1, 3):
        problems.append(f"model.in_channels={channels}: images are read with 1 or 3 channels.")
    for name in ("mean", "std"):
        if len(data[name]) != channels:
            problems.append(
                f"data.{name}={data[name]} needs one value for each of the "
                f"{channels} channels (model.in_channels)."
            )
    _check_entries(problems, "data.mean", data.mean, low=0, high=1)
    _check_entries(problems, "data.std", data.std, above=0)
    _check_range(problems, "data.image_size", data.image_size, low=1)
    _check_range(problems, "data.crop_pct", data.crop_pct, low=0.05, high=1)
    _check_range(problems, "data.pad", data.pad, low=0, high=data.image_size)
    if data.pad and data.crop != "padded":
        problems.append(f"data.pad={data.pad} goes with data.crop='padded', not {data.crop!r}.")
    _check_choice(problems, "data.crop", data.crop, CROPS)
    _check_choice(problems, "data.interpolation", data.interpolation, ("bilinear", "bicubic"))
    _check_choice(problems, "data.train_interpolation", data.train_interpolation, [*INTERPOLATIONS])
    for name in ("hflip_prob", "erase_prob", "switch_prob", "max_broken_fraction"):
        _check_range(problems, f"data.{name}", data[name], low=0, high=1)
    for name in ("mixup_alpha", "cutmix_alpha"):
        _check_range(problems, f"data.{name}", data[name], low=0)
    for name, high in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
        count = len(problems)
        _check_entries(problems, f"data.{name}", data[name], above=0, high=high)
        if len(problems) == count and (len(data[name]) != 2 or data[name][0] > data[name][1]):
            problems.append(f"data.{name}={data[name]} must be (low, high) with low <= high.")
    _check_range(problems, "data.num_workers", data.num_workers, low=-1)
    if data.rand_augment:
        _collect(problems, lambda: parse_rand_augment(data.rand_augment))


def _check_optimizer(config: ConfigDict, problems: list[str]) -> None:
    optimizer = config.optimizer
    for name in ("learning_rate", "min_learning_rate", "warmup_learning_rate", "weight_decay"):
        # The step computes in float32.
        _check_range(problems, f"optimizer.{name}", optimizer[name], low=0, high=1e38)
    for name in ("min_learning_rate", "warmup_learning_rate"):
        if optimizer[name] > optimizer.learning_rate:
            problems.append(
                f"optimizer.{name}={optimizer[name]} must be at most "
                f"optimizer.learning_rate={optimizer.learning_rate}."
            )
    for name in ("beta1", "beta2"):
        _check_range(problems, f"optimizer.{name}", optimizer[name], low=0, below=1)
    for name in ("clip_norm", "warmup_epochs", "cooldown_epochs"):
        _check_range(problems, f"optimizer.{name}", optimizer[name], low=0)
    # Without it a parameter that never had a gradient is 0 / 0.
    _check_range(problems, "optimizer.epsilon", optimizer.epsilon, low=1e-20)
    _check_range(problems, "optimizer.epochs", optimizer.epochs, low=1)
    if optimizer.warmup_epochs >= optimizer.epochs:
        problems.append(
            f"optimizer.warmup_epochs={optimizer.warmup_epochs} must be below "
            f"optimizer.epochs={optimizer.epochs}."
        )
    _check_choice(problems, "optimizer.schedule_by", optimizer.schedule_by, ("epoch", "step"))


def _check_training(config: ConfigDict, problems: list[str]) -> None:
    training = config.training
    for name in (
        *("batch_size", "eval_batch_size", "gradient_accumulation", "fsdp"),
        *("eval_every_epochs", "keep_latest", "log_every_steps", "max_bad_steps", "save_seconds"),
    ):
        _check_range(problems, f"training.{name}", training[name], low=1)
    for name in ("checkpoint_every_steps", "keep_best", "stall_seconds"):
        _check_range(problems, f"training.{name}", training[name], low=0)
    # Keys and Grain's shuffle take 32-bit seeds.
    _check_range(problems, "training.seed", training.seed, low=0, below=2**32)
    for name in ("label_smoothing", "ema_decay"):
        _check_range(problems, f"training.{name}", training[name], low=0, below=1)
    for writer in training.writers:
        _check_choice(problems, "training.writers", writer, METRIC_WRITERS)
    if len(set(training.writers)) < len(training.writers):
        problems.append(f"training.writers={training.writers} names a writer twice.")
