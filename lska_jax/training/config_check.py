"""The check of a whole config, before anything heavy is imported.

A mistake costs a second, not a compile. Problems are collected, so that one message lists all.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from lska_jax.models.checks import least_side
from lska_jax.models.table import fields_of
from lska_jax.running.value_checks import check_choice, check_entries, check_range
from lska_jax.tasks.table import DEFAULT_TASK, task_entry, task_section
from lska_jax.training.config import (
    base_config,
    leaf_keys,
    model_section,
    unknown_key_message,
)
from lska_jax.training.evaluators import check_evaluators, evaluator_settings

METRIC_WRITERS = ("jsonl", "tensorboard", "wandb", "mlflow")


def check_config(config: ConfigDict) -> None:
    """Check the whole config against itself; nothing is read from disk, no device is asked.

    Raises:
      ValueError: listing every contradiction, with the value and what is allowed.
    """
    check_keys(config)
    problems: list[str] = []
    checks = (_check_model, _check_task, _check_data, _check_optimizer, _check_training)
    for check in (*checks, _check_tuning, check_evaluators):
        check(config, problems)
    if problems:
        raise ValueError("The config does not work:\n- " + "\n- ".join(problems))


def check_keys(config: ConfigDict) -> None:
    """Check that a config has the keys of ``base_config``, its task and its model, and no others.

    A misspelt key would otherwise be a new one, which nobody reads. The group of a task that does
    not state its keys is the task's own, and ``evaluators`` are checked by name.

    Raises:
      ValueError: naming every key that is unknown or missing.
    """
    schema = base_config()
    own: tuple[str, ...] = ("evaluators.",)
    task = config.get("task", DEFAULT_TASK)
    if section := task_section(task):
        schema[task] = ConfigDict(section)
    else:
        own += (f"{task}.",)
    try:
        head = config.model.get("head")
        fields = {"head": head.name} if head else {}
        schema.model = model_section(config.model.name, **fields)
    except (ValueError, KeyError, AttributeError):
        # A model that does not exist has no fields; the check of the model says so.
        own += ("model.",)
    allowed, found = leaf_keys(schema), leaf_keys(config)
    problems = [
        unknown_key_message(schema, key)
        for key in found
        if key not in allowed and not key.startswith(own)
    ]
    starts = {"masked_images": "masked_recipe.masked_images_config()"}
    own_start = starts.get(task, "dense_recipe.dense_config()")
    problems += [
        f"The config lacks {key!r}; start from lska_jax.training."
        + (f"{own_start}." if key.startswith(f"{task}.") else "config.base_config().")
        for key in allowed
        if key not in found and not key.startswith(("model.", "task"))
    ]
    if problems:
        raise ValueError("\n".join(problems))


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


def check_sources(
    config: ConfigDict,
    *,
    is_training: bool,
    on_missing: Callable[[str], None] | None = None,
) -> None:
    """Compare the config with its data, before jax is imported and without reading an example.

    Args:
      config: checked by ``check_config``.
      is_training: whether the training split is read too.
      on_missing: called with the reason where data is missing, instead of the error.

    Raises:
      ValueError: a split is missing, is not what the config says, or is smaller than a batch.
    """
    entry, data = task_entry(config), config.data
    splits = {(one.source, one.split) for one in evaluator_settings(config)}
    if is_training:
        check_splits_differ(config)
        splits.add((data.source, data.train_split))
    for source, split in sorted(splits):
        try:
            facts = entry.inspect(config, source, split)
        except ValueError as error:
            if on_missing is None:
                raise
            on_missing(str(error))
            return
        where = f"{source} split {split!r}"
        entry.compare(config, facts, where)
        is_training_split = is_training and (source, split) == (data.source, data.train_split)
        if is_training_split and config.training.batch_size > facts.num_examples:
            raise ValueError(
                f"training.batch_size={config.training.batch_size} is larger than the "
                f"{facts.num_examples} examples of {where}; lower it."
            )


def _check_model(config: ConfigDict, problems: list[str]) -> None:
    section = config.model
    try:
        family, fields = fields_of(section.to_dict())
    except ValueError as error:
        problems.append(f"model: {error}")
        return
    found = [f"model.{problem}" for problem in family.check(fields)]
    problems += found
    multiple = 1 if found else family.image_multiple(fields)
    if config.data.image_size % multiple:
        size = config.data.image_size
        nearest = sorted(
            {max(multiple, size // multiple * multiple), (size // multiple + 1) * multiple}
        )
        problems.append(
            f"data.image_size={size}: {section.name} takes multiples of {multiple}; nearest: "
            f"{' or '.join(map(str, nearest))}."
        )
    least = 1 if found else least_side(family.config(**fields))
    if 0 < config.data.image_size < least:
        problems.append(
            f"data.image_size={config.data.image_size}: {section.name} takes {least} or more; less "
            "leaves a map without a pixel."
        )
    check_range(problems, "model.num_classes", section.num_classes, low=1)


def _check_task(config: ConfigDict, problems: list[str]) -> None:
    try:
        entry = task_entry(config)
    except ValueError as error:
        problems.append(str(error))
    else:
        entry.check(config, problems)


def _check_data(config: ConfigDict, problems: list[str]) -> None:
    check_range(problems, "data.num_workers", config.data.num_workers, low=-1)
    fraction = config.data.max_broken_fraction
    check_range(problems, "data.max_broken_fraction", fraction, low=0, high=1)


def _check_optimizer(config: ConfigDict, problems: list[str]) -> None:
    optimizer = config.optimizer
    for name in ("learning_rate", "min_learning_rate", "warmup_learning_rate", "weight_decay"):
        # The step computes in float32.
        check_range(problems, f"optimizer.{name}", optimizer[name], low=0, high=1e38)
    for name in ("min_learning_rate", "warmup_learning_rate"):
        if optimizer[name] > optimizer.learning_rate:
            problems.append(
                f"optimizer.{name}={optimizer[name]} must be at most "
                f"optimizer.learning_rate={optimizer.learning_rate}."
            )
    for name in ("beta1", "beta2"):
        check_range(problems, f"optimizer.{name}", optimizer[name], low=0, below=1)
    for name in ("clip_norm", "warmup_epochs", "cooldown_epochs"):
        check_range(problems, f"optimizer.{name}", optimizer[name], low=0)
    # Without it a parameter that never had a gradient is 0 / 0.
    check_range(problems, "optimizer.epsilon", optimizer.epsilon, low=1e-20)
    check_range(problems, "optimizer.epochs", optimizer.epochs, low=1)
    if optimizer.warmup_epochs >= optimizer.epochs:
        problems.append(
            f"optimizer.warmup_epochs={optimizer.warmup_epochs} must be below "
            f"optimizer.epochs={optimizer.epochs}."
        )
    check_choice(problems, "optimizer.schedule_by", optimizer.schedule_by, ("epoch", "step"))
    check_choice(problems, "optimizer.schedule", optimizer.schedule, ("cosine", "poly", "drops"))
    decays = ("matrices", "all", "not_backbone_norms")
    check_choice(problems, "optimizer.decay", optimizer.decay, decays)
    check_range(problems, "optimizer.power", optimizer.power, above=0)
    for name in ("warmup_steps", "steps"):
        check_range(problems, f"optimizer.{name}", optimizer[name], low=0)
    drops = optimizer.drop_epochs
    check_entries(problems, "optimizer.drop_epochs", drops, is_whole=True, low=1)
    if optimizer.schedule == "cosine" and (optimizer.steps or optimizer.warmup_steps or drops):
        problems.append(
            "optimizer.steps, warmup_steps and drop_epochs are of optimizer.schedule='poly' or "
            "'drops'; the cosine is counted in epochs."
        )


def _check_training(config: ConfigDict, problems: list[str]) -> None:
    training = config.training
    for name in (
        *("batch_size", "eval_batch_size", "gradient_accumulation", "fsdp"),
        *("eval_every_epochs", "keep_latest", "log_every_steps", "max_bad_steps", "save_seconds"),
    ):
        check_range(problems, f"training.{name}", training[name], low=1)
    for name in ("checkpoint_every_steps", "keep_best", "stall_seconds"):
        check_range(problems, f"training.{name}", training[name], low=0)
    # Keys and Grain's shuffle take 32-bit seeds.
    check_range(problems, "training.seed", training.seed, low=0, below=2**32)
    check_range(problems, "training.ema_decay", training.ema_decay, low=0, below=1)
    for writer in training.writers:
        check_choice(problems, "training.writers", writer, METRIC_WRITERS)
    if len(set(training.writers)) < len(training.writers):
        problems.append(f"training.writers={training.writers} names a writer twice.")


def _check_tuning(config: ConfigDict, problems: list[str]) -> None:
    optimizer, training = config.optimizer, config.training
    check_range(problems, "optimizer.layer_decay", optimizer.layer_decay, above=0, high=1)
    check_range(problems, "optimizer.head_learning_rate", optimizer.head_learning_rate, low=0)
    if optimizer.head_learning_rate and not optimizer.learning_rate:
        problems.append(
            f"optimizer.head_learning_rate={optimizer.head_learning_rate}: with "
            "optimizer.learning_rate=0 nothing else would be trained; give training.freeze="
            "('backbone',) and one learning rate."
        )
    muon_rate = optimizer.muon_learning_rate
    check_range(problems, "optimizer.muon_learning_rate", muon_rate, low=0, high=1e38)
    if muon_rate and not optimizer.learning_rate:
        problems.append(
            f"optimizer.muon_learning_rate={muon_rate}: it follows the schedule of "
            "optimizer.learning_rate, which is 0; give both, as 0.05 and 0.005."
        )
    for name in ("freeze", "freeze_statistics"):
        if not all(isinstance(pattern, str) and pattern for pattern in training[name]):
            problems.append(
                f"training.{name}={training[name]!r} must be texts, as in ('stem', 'stage1')."
            )
    for name in ("unfreeze_every_epochs", "patience"):
        check_range(problems, f"training.{name}", training[name], low=0)
