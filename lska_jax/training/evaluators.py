"""Which evaluations a run makes, by name, and when; nothing heavy is imported.

``eval`` is always there: the task's metrics on ``data.eval_split``, every
``training.eval_every_epochs`` epochs and at the end. It alone decides which checkpoint is best.
``config.evaluators`` adds any number, each reported as ``NAME/METRIC``:

    config.evaluators.seen = {"split": "train[:10%]", "every_epochs": 10}
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from lska_jax.running.value_checks import check_choice, check_entries

MAIN_EVALUATOR = "eval"
METRICS = "metrics"

_KEYS = ("type", "source", "split", "every_epochs")
_TYPES: dict[str, Callable[..., Any]] = {}


class EvaluatorSettings(NamedTuple):
    """One evaluator of a run.

    Attributes:
      name: what its metrics are called by.
      source: what it reads, as in ``config.data.source``.
      split: which split of that.
      every_epochs: how often it runs; also at the end.
      type: ``metrics``, the task's, or one that was registered.
    """

    name: str
    source: str
    split: str
    every_epochs: int
    type: str = METRICS

    def is_due(self, step: int, *, steps_per_epoch: int, total_steps: int) -> bool:
        """Tell whether the state after a step is evaluated."""
        epoch, step_of_epoch = divmod(step, steps_per_epoch)
        return step == total_steps or (step_of_epoch == 0 and epoch % self.every_epochs == 0)


def register_evaluator(name: str, build: Callable[..., Any]) -> None:
    """Make a type of evaluator known, for ``type`` in ``config.evaluators``.

    Args:
      name: of the type.
      build: called as ``lska_jax.training.evaluator.Evaluator`` is; returns an object with its
        ``evaluate``.
    """
    _TYPES[name] = build


def registered_evaluator(name: str) -> Callable[..., Any] | None:
    """Return what builds evaluators of a type; None for ``metrics``."""
    return _TYPES.get(name)


def evaluator_settings(config: ConfigDict) -> tuple[EvaluatorSettings, ...]:
    """Return a checked config's evaluators, the deciding one first."""
    data, every_epochs = config.data, config.training.eval_every_epochs
    main = EvaluatorSettings(MAIN_EVALUATOR, data.source, data.eval_split, every_epochs)
    defaults = main._asdict()
    # Configs that were saved before there were evaluators have no such group.
    others = config.get("evaluators", {})
    return (
        main,
        *(EvaluatorSettings(**{**defaults, **own, "name": name}) for name, own in others.items()),
    )


def main_means(evaluation: Mapping[str, float]) -> dict[str, float]:
    """Return the deciding evaluator's metrics without its name; empty where it did not run."""
    prefix = f"{MAIN_EVALUATOR}/"
    return {
        name.removeprefix(prefix): value
        for name, value in evaluation.items()
        if name.startswith(prefix)
    }


def check_evaluators(config: ConfigDict, problems: list[str]) -> None:
    """Add a sentence for everything in ``config.evaluators`` that does not work."""
    for name, own in config.get("evaluators", {}).items():
        label = f"evaluators.{name}"
        if name in (MAIN_EVALUATOR, "train") or "/" in name or not name:
            problems.append(
                f"{label}: choose another name, without a slash; {MAIN_EVALUATOR!r} is the "
                "evaluation of data.eval_split, and 'train' the records of training."
            )
        if not isinstance(own, ConfigDict):
            problems.append(f"{label}={own!r} must be a group of {', '.join(_KEYS)}.")
            continue
        unknown = sorted(set(own) - set(_KEYS))
        if unknown:
            problems.append(
                f"{label} has unknown keys {', '.join(unknown)}; allowed: {', '.join(_KEYS)}."
            )
        every_epochs = [own.get("every_epochs", 1)]
        check_entries(problems, f"{label}.every_epochs", every_epochs, is_whole=True, low=1)
        for key in ("source", "split"):
            if not isinstance(own.get(key, ""), str):
                problems.append(f"{label}.{key}={own[key]!r} must be text.")
        check_choice(problems, f"{label}.type", own.get("type", METRICS), (METRICS, *_TYPES))
