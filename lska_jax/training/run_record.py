"""What a checkpoint says of its run besides the state, and what of that a resume compares.

A state alone is numbers by step. Which classes its outputs are, and how many images a step and an
epoch have, stand in this record; a run goes on only where they are what they were.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from lska_jax.data.split_slices import parse_slices
from lska_jax.training.checkpoint.errors import CheckpointDamaged
from lska_jax.training.checkpoint.manifest import MANIFEST_NAME
from lska_jax.training.metric_writers import flatten

if TYPE_CHECKING:
    from lska_jax.training.run import Run

UNKNOWN_CLASSES = "The checkpoint does not say its classes: labels are taken by position."
MAPPED_CLASSES = "The data has the run's classes in another order: labels are mapped by name."

_DRAW = "as the seed of the slices"

# They change neither what is trained nor what is measured.
_SILENT_KEYS = frozenset(
    {
        "data.num_workers",
        "data.max_broken_fraction",
        "training.eval_batch_size",
        "training.fsdp",
        "training.max_bad_steps",
        "training.writers",
        "training.log_every_steps",
        "training.checkpoint_every_steps",
        "training.keep_latest",
        "training.keep_best",
        "training.save_seconds",
        "training.stall_seconds",
    }
)


def make_record(
    run: Run,
    *,
    class_names: Sequence[str] | None,
    evaluation: Mapping[str, float],
    is_evaluation_due: bool,
    open_record: Mapping[str, Any],
    broken_in_epoch: int,
    patience: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a checkpoint keeps besides the state.

    Args:
      run: its parts.
      class_names: of the model's outputs, in their order; None where they are no classes.
      evaluation: of the state, by evaluator and metric; empty where there was none.
      is_evaluation_due: whether the state is to be evaluated at the next start.
      open_record: means in the making, from ``Reporter.open_record``.
      broken_in_epoch: images of the epoch so far that could not be read.
      patience: what early stopping has counted, from ``Patience.record``.
    """
    return {
        "config": run.config.to_dict(),
        "class_names": None if class_names is None else list(class_names),
        "evaluation": dict(evaluation),
        "is_evaluation_due": is_evaluation_due,
        "steps_per_epoch": run.steps_per_epoch,
        "num_train_examples": run.num_train_examples,
        "open_record": dict(open_record),
        "broken_in_epoch": broken_in_epoch,
        "patience": dict(patience),
    }


def record_problems(record: Mapping[str, Any]) -> list[str]:
    """Return a phrase for everything in a record that is not of its type; [] where all is.

    Records of older versions have fewer entries.
    """
    return [
        f"{name} is {json.dumps(record[name])[:80]}"
        for name, is_right in _TYPES.items()
        if name in record and not is_right(record[name])
    ]


def check_record(record: Mapping[str, Any], *, where: Path) -> None:
    """Refuse the record of a checkpoint that is to be used without its run.

    Args:
      record: of the checkpoint.
      where: the checkpoint's folder.

    Raises:
      CheckpointDamaged: something in it is not of its type.
    """
    problems = record_problems(record)
    if problems:
        raise CheckpointDamaged(f"{where / MANIFEST_NAME} is damaged: {'; '.join(problems)}.")


def class_names_of(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that a record has, in label order; None where it has none."""
    names = record.get("class_names")
    return None if names is None else tuple(names)


def open_steps(record: Mapping[str, Any]) -> int | None:
    """Return how many steps before the checkpoint no line of the metrics has yet; None: unknown."""
    if "open_record" not in record:
        return None
    return max(record["open_record"]["counts"].values(), default=0)


def check_same_schedule(record: Mapping[str, Any], run: Run, *, step: int, workdir: Path) -> None:
    """Refuse to go on where a step or an epoch would have other images than before.

    Learning rate, order of the images and epochs in the metrics are all counted in steps.

    Args:
      record: of the checkpoint.
      run: that would go on.
      step: of the checkpoint.
      workdir: of the run, for the message.

    Raises:
      ValueError: with what was, what is, and what to do.
    """
    now = {
        "images a step": run.config.training.batch_size,
        "training images": run.num_train_examples,
        "steps an epoch": run.steps_per_epoch,
        _DRAW: _draw_of(run.config.data.train_split),
    }
    before: dict[str, Any] = {
        "images a step": _settings(record, "training").get("batch_size"),
        "training images": record.get("num_train_examples"),
        "steps an epoch": record.get("steps_per_epoch"),
        _DRAW: _draw_of(_settings(record, "data").get("train_split", run.config.data.train_split)),
    }
    changes = [
        f"{before[name]} {name}, now {now[name]}"
        for name in now
        if before[name] not in (None, now[name])
    ]
    if not changes:
        return
    advice = []
    size, count = before["images a step"], before["training images"]
    if size not in (None, now["images a step"]):
        advice.append(
            f"give it --config.training.batch_size={size} (where memory is short, raise "
            "training.gradient_accumulation instead)"
        )
    if count not in (None, now["training images"]) or before[_DRAW] != now[_DRAW]:
        advice.append(_advise_on_images(_settings(record, "data"), run.config.data, count=count))
    steps_per_epoch = before["steps an epoch"]
    epoch = f", epoch {step / steps_per_epoch:.2f}" if steps_per_epoch else ""
    raise ValueError(
        f"The run in {workdir} is at step {step}{epoch}, and its steps have changed: "
        f"{'; '.join(changes)}. Learning rate, order of the images and epochs are counted in "
        "steps, so it cannot go on at the same place. To go on, "
        f"{' and '.join(advice) or 'give it what it had'}. To start afresh from "
        f"its weights: --workdir OTHER --config.training.finetune_from={workdir}."
    )


def _advise_on_images(before: Mapping[str, Any], now: ConfigDict, *, count: int) -> str:
    """Return how a run gets its training images back: by settings, or by what a place holds."""
    settings = [
        f"--config.data.{name}={shlex.quote(str(before[name]))}"
        for name in ("source", "data_dir", "train_split", "eval_split")
        if name in before and before[name] != now[name]
    ]
    if settings:
        return f"give it {' '.join(settings)}"
    return f"give {now.source} the {count:,} training images of before"


def _draw_of(split: str) -> str:
    """Return the seeds of a split's slices: with others an image may be held out that was seen."""
    return "+".join(str(part.seed) for part in parse_slices(split) if part.seed) or "0"


def changed_settings(record: Mapping[str, Any], config: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return what a config changes since a checkpoint: (before, now) by key."""
    if "config" not in record:
        return {}
    before, now = flatten(record["config"]), flatten(json.loads(json.dumps(config.to_dict())))
    # Another key that only one of the two has came or went with the program.
    changed = {
        name: (before[name], value)
        for name, value in now.items()
        if name in before and before[name] != value
    }
    for name in sorted(before.keys() ^ now.keys()):
        if name.startswith("evaluators."):
            changed[name] = (before.get(name), now.get(name))
    return changed


def check_finished_alike(
    record: Mapping[str, Any], config: ConfigDict, *, step: int, workdir: Path
) -> None:
    """Refuse another config for a run that it leaves nothing to train for.

    Args:
      record: of the last checkpoint.
      config: that was asked for.
      step: of the checkpoint.
      workdir: of the run, for the message.

    Raises:
      ValueError: with what differs, and what to do.
    """
    changed = {
        name: values
        for name, values in changed_settings(record, config).items()
        if name not in _SILENT_KEYS
    }
    if not changed:
        return
    listed = "\n  ".join(f"{name}: {old} -> {new}" for name, (old, new) in changed.items())
    end = _end_of(record)
    stands = f"is at step {step} of {end}" if step < end else f"has finished, at step {step}"
    raise ValueError(
        f"The run in {workdir} {stands}, with another config:\n  {listed}\n"
        "Nothing is left to train with this one, and nothing was written. Train with it in another "
        f"--workdir, from these weights if --config.training.finetune_from={workdir} is added; "
        "raise optimizer.epochs, or training.patience where that ended it, to train on; or "
        "evaluate with --eval_only."
    )


def _settings(record: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """Return a section of the config that a record has; {} where it has none."""
    found = record.get("config", {}).get(section)
    return found if isinstance(found, dict) else {}


def _end_of(record: Mapping[str, Any]) -> int:
    """Return the last step of the schedule that a record is of; 0 where it does not say."""
    settings = _settings(record, "optimizer")
    steps = record.get("steps_per_epoch")
    epochs, cooldown = (settings.get(name) for name in ("epochs", "cooldown_epochs"))
    if not all(map(_is_count, (steps, epochs, cooldown))):
        return 0
    end: int = steps * (epochs + cooldown)  # type: ignore[operator]
    return end


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    """Tell whether a value is a number; of what is not finite, JSON keeps null."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (is_number and math.isfinite(value))


def _maps(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


def _is_open_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _maps(_is_number)(value.get("sums"))
        and _maps(_is_count)(value.get("counts"))
        and value["sums"].keys() == value["counts"].keys()
    )


def _are_names(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(name, str) for name in value)
    )


_TYPES: dict[str, Callable[[Any], bool]] = {
    "config": _maps(lambda value: isinstance(value, dict | str)),
    "class_names": _are_names,
    "evaluation": _maps(_is_number),
    "is_evaluation_due": lambda value: isinstance(value, bool),
    "steps_per_epoch": lambda value: _is_count(value) and value > 0,
    "num_train_examples": _is_count,
    "open_record": _is_open_record,
    "broken_in_epoch": _is_count,
    "patience": lambda value: (
        isinstance(value, dict) and _is_number(value.get("best")) and _is_count(value.get("waited"))
    ),
}
