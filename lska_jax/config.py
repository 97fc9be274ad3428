"""The configuration of a run: every key with its default, and the check of the whole.

A config file in ``configs/`` starts from ``base_config`` and changes what its experiment changes.
The check runs before anything heavy is imported: a mistake costs a second, not a compile.
"""

import difflib
import math
import re
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from lska_jax.nn.model_table import ATTENTION_NAMES, model_entry
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, check_odd_kernel, kernel_spec

METRIC_WRITERS = ("jsonl", "tensorboard", "wandb", "mlflow")


def base_config() -> ConfigDict:
    """Return the paper's recipe for ImageNet-1K, complete and unlocked, for a config to change."""
    config = ConfigDict()

    config.model = model = ConfigDict()
    model.name = "van_lska_tiny"
    model.k = DEFAULT_KERNEL_SIZE  # extent of the large kernel
    model.dilation = placeholder(int)  # None: the reference's choice for k
    model.num_classes = 1000
    model.in_channels = 3
    model.dims = ()  # () keeps the named size; otherwise one entry a stage
    model.depths = ()
    model.ffn_ratios = ()
    model.stem_stride = 4  # 1 or 2 for small images
    model.drop_rate = 0.0
    model.drop_path_rate = 0.1
    model.dtype = "float32"  # compute dtype: float32 or bfloat16
    model.remat = False  # recompute blocks in the backward pass: less memory, more compute
    model.implementation = "auto"  # formulation of the depth-wise convolutions

    config.data = data = ConfigDict()
    data.source = "tfds:imagenet2012"  # digits, folder:PATH or tfds:NAME
    data.data_dir = ""  # where TFDS keeps its sets; "" is TFDS's default
    data.train_split = "train"
    data.eval_split = "validation"
    data.image_size = 224
    data.mean = (0.5, 0.5, 0.5)  # for pixels in [0, 1]; the reference's, not ImageNet's
    data.std = (0.5, 0.5, 0.5)
    data.crop_pct = 0.9  # evaluation: image_size over the resized short side
    data.interpolation = "bicubic"  # evaluation
    data.crop = "random_resized"  # training: random_resized, padded or none
    data.crop_scale = (0.08, 1.0)
    data.crop_ratio = (3 / 4, 4 / 3)
    data.pad = 0  # pixels on each side, for crop "padded"
    data.hflip_prob = 0.5
    data.rand_augment = "rand-m9-mstd0.5-inc1"  # "" turns it off
    data.train_interpolation = "random"  # bilinear, bicubic or random
    data.erase_prob = 0.25
    data.mixup_alpha = 0.8
    data.cutmix_alpha = 1.0
    data.switch_prob = 0.5  # of CutMix where Mixup is on too
    data.num_workers = -1  # decoding processes; -1: by the number of cores; 0: threads
    data.max_broken_fraction = 0.01  # of an epoch's images; beyond it the run stops

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-3  # not scaled by the batch size
    optimizer.min_learning_rate = 1e-6
    optimizer.warmup_learning_rate = 1e-6
    optimizer.epochs = 300  # of the cosine, warm-up included
    optimizer.warmup_epochs = 5
    optimizer.cooldown_epochs = 10  # at the minimum, after the cosine
    optimizer.schedule_by = "epoch"  # epoch (the reference) or step
    optimizer.weight_decay = 0.05
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.999
    optimizer.epsilon = 1e-8
    optimizer.clip_norm = 0.0  # 0 does not clip

    config.training = training = ConfigDict()
    training.batch_size = 512  # of a step, over all devices
    training.eval_batch_size = 512
    training.gradient_accumulation = 1  # microbatches that a batch is split into
    training.seed = 0
    training.label_smoothing = 0.1
    training.ema_decay = 0.0  # 0.9998 when on; 0 keeps no average
    training.fsdp = 1  # devices that share one copy of the parameters
    training.eval_every_epochs = 1
    training.checkpoint_every_steps = 0  # besides the one after each evaluation; 0: none
    training.keep_latest = 2
    training.keep_best = 1
    training.log_every_steps = 50
    training.writers = ("jsonl", "tensorboard")
    training.max_bad_steps = 20  # non-finite steps in a row after which the run stops
    training.finetune_from = ""  # checkpoint or run folder to start the parameters from
    return config


def parse_argument(argument: str | None) -> dict[str, int | bool]:
    """Read a config's argument, as in ``configs/van_lska_base.py:35,trivial``.

    Args:
      argument: what stands behind the colon: k, "trivial", or both with a comma; None or "" is
        nothing.

    Returns:
      {"k": int, "is_trivial": bool}.

    Raises:
      ValueError: a part is neither a number nor "trivial".
    """
    parsed: dict[str, int | bool] = {"k": DEFAULT_KERNEL_SIZE, "is_trivial": False}
    for part in (argument or "").split(","):
        word = part.strip()
        if word == "trivial":
            parsed["is_trivial"] = True
        elif re.fullmatch(r"(k=)?\d+", word):
            parsed["k"] = int(word.removeprefix("k="))
        elif word:
            raise ValueError(
                f"Config argument {argument!r}: {word!r} is not understood; allowed: a kernel "
                "size, trivial, or both, as in configs/van_lska_base.py:35,trivial."
            )
    return parsed


def imagenet_config(attention: str, size: str, argument: str | None) -> ConfigDict:
    """Return the paper's recipe for one VAN, with k and the trivial form from the argument.

    Args:
      attention: "lska" or "lka".
      size: key of ``lska_jax.nn.model_table.SIZES``.
      argument: see ``parse_argument``.
    """
    parsed = parse_argument(argument)
    config = base_config()
    config.model.name = f"van_{attention}{'_trivial' if parsed['is_trivial'] else ''}_{size}"
    config.model.k = parsed["k"]
    return config


def unknown_key_message(config: ConfigDict, key: str) -> str:
    """Say that a key does not exist, which come close, and which its group has.

    Args:
      config: the config that was loaded.
      key: dotted, without the leading "config.".
    """
    allowed = list(_leaf_keys(config))
    close = difflib.get_close_matches(key, allowed, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    group = key.split(".")[0]
    siblings = [name for name in allowed if name.startswith(f"{group}.")]
    listed = ", ".join(siblings or config.keys())
    return f"Unknown config key {key!r}.{hint} Allowed: {listed}."


def has_key(config: ConfigDict, key: str) -> bool:
    """Tell whether a dotted key names a value of the config."""
    return key in _leaf_keys(config)


def describe_type(config: ConfigDict, key: str) -> str:
    """Return which values a dotted key takes, with its present value as an example."""
    group, _, name = key.rpartition(".")
    parent = config[group] if group else config
    return f"{parent.get_type(name).__name__}, as in {key}={parent[name]!r}"


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


def check_against_devices(config: ConfigDict, *, device_count: int) -> None:
    """Check that the batches split evenly over the devices and microbatches.

    Raises:
      ValueError: they do not; the message names the nearest sizes that do.
    """
    training = config.training
    problems = []
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
    if split == config.data.train_split and config.training.batch_size > num_examples:
        raise ValueError(
            f"training.batch_size={config.training.batch_size} is larger than the {num_examples} "
            f"examples of {source} split {split!r}; lower it."
        )


def _leaf_keys(config: ConfigDict, prefix: str = "") -> Sequence[str]:
    keys: list[str] = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            keys += _leaf_keys(value, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _collect(problems: list[str], check: Callable[[], object]) -> None:
    try:
        check()
    except (ValueError, TypeError) as error:
        problems.append(str(error))


def _check_range(
    problems: list[str],
    name: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
) -> None:
    if math.isfinite(value) and low <= value <= high and value < below:
        return
    bounds = [f"at least {low:g}"] if low > -math.inf else []
    bounds += [f"at most {high:g}"] if high < math.inf else []
    bounds += [f"below {below:g}"] if below < math.inf else []
    problems.append(f"{name}={value} must be {' and '.join(bounds) or 'finite'}.")


def _check_choice(problems: list[str], name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        problems.append(f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}.")


def _check_model(config: ConfigDict, problems: list[str]) -> None:
    model = config.model
    attention = None
    try:
        attention = model_entry(model.name).attention
    except ValueError as error:
        problems.append(f"model.name: {error}")
    if attention in ATTENTION_NAMES:
        if attention.endswith("_trivial"):
            if model.dilation is not None:
                problems.append(f"model.dilation={model.dilation}: {model.name} has no dilation.")
            _collect(problems, lambda: check_odd_kernel(model.k))
        else:
            _collect(problems, lambda: kernel_spec(model.k, dilation=model.dilation))
    lengths = {len(model[name]) for name in ("dims", "depths", "ffn_ratios") if model[name]}
    stages = lengths | ({4} if not all((model.dims, model.depths, model.ffn_ratios)) else set())
    if len(stages) > 1:
        problems.append(
            f"model.dims={model.dims}, model.depths={model.depths} and "
            f"model.ffn_ratios={model.ffn_ratios} need one entry for each stage "
            "(an empty one keeps the named size's four)."
        )
    for name in ("num_classes", "in_channels", "stem_stride"):
        _check_range(problems, f"model.{name}", model[name], low=1)
    for name in ("drop_rate", "drop_path_rate"):
        _check_range(problems, f"model.{name}", model[name], low=0, below=1)
    _check_choice(problems, "model.dtype", model.dtype, ("float32", "bfloat16"))


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
    if any(value <= 0 for value in data.std):
        problems.append(f"data.std={data.std} must be positive.")
    _check_range(problems, "data.image_size", data.image_size, low=1)
    _check_range(problems, "data.crop_pct", data.crop_pct, low=0.05, high=1)
    _check_range(problems, "data.pad", data.pad, low=0)
    _check_choice(problems, "data.crop", data.crop, CROPS)
    _check_choice(problems, "data.interpolation", data.interpolation, ("bilinear", "bicubic"))
    _check_choice(problems, "data.train_interpolation", data.train_interpolation, INTERPOLATIONS)
    for name in ("hflip_prob", "erase_prob", "switch_prob", "max_broken_fraction"):
        _check_range(problems, f"data.{name}", data[name], low=0, high=1)
    for name in ("mixup_alpha", "cutmix_alpha"):
        _check_range(problems, f"data.{name}", data[name], low=0)
    for name, high in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
        bounds = data[name]
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= high:
            problems.append(f"data.{name}={bounds} must be (low, high) with 0 < low <= high.")
    _check_range(problems, "data.num_workers", data.num_workers, low=-1)
    if data.rand_augment:
        _collect(problems, lambda: parse_rand_augment(data.rand_augment))


def _check_optimizer(config: ConfigDict, problems: list[str]) -> None:
    optimizer = config.optimizer
    for name in ("learning_rate", "min_learning_rate", "warmup_learning_rate", "weight_decay"):
        _check_range(problems, f"optimizer.{name}", optimizer[name], low=0)
    for name in ("beta1", "beta2"):
        _check_range(problems, f"optimizer.{name}", optimizer[name], low=0, below=1)
    for name in ("epsilon", "clip_norm", "warmup_epochs", "cooldown_epochs"):
        _check_range(problems, f"optimizer.{name}", optimizer[name], low=0)
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
        *("eval_every_epochs", "keep_latest", "log_every_steps", "max_bad_steps"),
    ):
        _check_range(problems, f"training.{name}", training[name], low=1)
    for name in ("checkpoint_every_steps", "keep_best"):
        _check_range(problems, f"training.{name}", training[name], low=0)
    # Keys and Grain's shuffle take 32-bit seeds.
    _check_range(problems, "training.seed", training.seed, low=0, below=2**32)
    for name in ("label_smoothing", "ema_decay"):
        _check_range(problems, f"training.{name}", training[name], low=0, below=1)
    for writer in training.writers:
        _check_choice(problems, "training.writers", writer, METRIC_WRITERS)
