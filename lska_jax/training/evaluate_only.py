"""Evaluate a checkpoint without training."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lska_jax.running.parallel import is_main_process, place, state_sharding
from lska_jax.running.stop_signals import StopRequested, StopSignals
from lska_jax.running.whole_file import write_whole
from lska_jax.training import run as building
from lska_jax.training.checkpoint.tree_difference import check_same_tree
from lska_jax.training.evaluator import Evaluators
from lska_jax.training.feeding import Oversight
from lska_jax.training.loop import make_reporter
from lska_jax.training.model_places import TrainedWeights, read_weights
from lska_jax.training.run_record import MAPPED_CLASSES, UNKNOWN_CLASSES, changed_settings
from lska_jax.training.trainer import Interrupted

# What decides which numbers a model makes of an image.
_SEEN_BY_THE_MODEL = (
    "model.",
    *(f"data.{name}" for name in ("image_size", "mean", "std", "crop_pct", "crop_mode")),
    "data.interpolation",
)


def evaluate_checkpoint(
    config: ConfigDict,
    *,
    workdir: str | Path,
    checkpoint: str | Path,
    signals: StopSignals | None = None,
) -> dict[str, float]:
    """Evaluate the best step of a checkpoint with all evaluators of a config.

    Args:
      config: checked by ``training.config_check.check_config``; its model is the checkpoint's, and
        its data has the checkpoint's classes.
      workdir: where ``evaluation.json`` and the log are written.
      checkpoint: a run's folder, its checkpoints folder or one step's folder; or another place of
        a model, see ``lska_jax.training.model_places.read_model``.
      signals: requests to stop, of a program that listens to them; None is never asked.

    Returns:
      What each measures, as ``lska_jax.training.loop.train`` returns it.

    Raises:
      FileNotFoundError: there is no checkpoint.
      CheckpointMismatch: it is of another model or class count; every difference is listed.
      ValueError: data or devices do not fit the config, or the data has other classes.
      Interrupted: a signal asked for it; there is nothing to save.
    """
    given = read_weights(checkpoint)
    sources = building.open_evaluation(building.build_task(config))
    # The training split need not be here; the checkpoint knows how long its epoch was.
    steps_per_epoch = given.record.get("steps_per_epoch", 1)
    run = building.build_run(
        config, num_train_examples=steps_per_epoch * config.training.batch_size
    )
    wanted = {**run.state.params, **run.state.batch_stats}
    arrays, names = given.arrays, given.class_names
    trained = sources
    if names is not None:
        trained = building.in_class_order(run.task, sources, names, whose=given.place)
    check_same_tree(arrays, wanted, where=given.place)
    placed = {
        path: place(arrays[path], state_sharding(run.mesh, leaf)) for path, leaf in wanted.items()
    }
    state = run.state._replace(
        params={path: placed[path] for path in run.state.params},
        batch_stats={path: placed[path] for path in run.state.batch_stats},
        ema={},
    )
    signals = signals or StopSignals()
    with make_reporter(run, Path(workdir), start_step=given.step, writers=()) as reporter:
        shown = ", ".join(source.name for source in sources.values())
        reporter.message(f"Evaluating {given.place} on {shown}.")
        if names is None and run.task.class_names(next(iter(sources.values()))) is not None:
            reporter.message(UNKNOWN_CLASSES)
        if any(trained[name] is not source for name, source in sources.items()):
            reporter.message(MAPPED_CLASSES)
        for name, before, now in _other_settings(given, config):
            reporter.message(f"The checkpoint was trained with {name}={before}, not {now}.")
        oversight = Oversight(
            signals, run.mesh, stall_seconds=config.training.stall_seconds, reporter=reporter
        )
        evaluators = Evaluators(run, trained, reporter, oversight)
        evaluators.compile()
        signals.keep_requests()
        with oversight.watchdog:
            try:
                evaluation = evaluators.evaluate(evaluators.all, state, step=given.step)
            except StopRequested:
                name = signals.name or "a signal to another process"
                raise Interrupted(f"Interrupted by {name}: no evaluation was written.") from None
    if is_main_process():
        record = {"checkpoint": given.place, "step": given.step, **evaluation}
        write_whole(Path(workdir) / "evaluation.json", json.dumps(record, indent=2) + "\n")
    return evaluation


def _other_settings(given: TrainedWeights, config: ConfigDict) -> list[tuple[str, Any, Any]]:
    """Return (name, trained with, asked for) of what makes other numbers of the same image."""
    if given.facts:
        prepared = given.facts.preprocessing._asdict()
        return [
            (f"data.{name}", before, config.data[name])
            for name, before in prepared.items()
            if name in config.data and before != config.data[name]
        ]
    changed = changed_settings(given.record, config)
    return [(n, *values) for n, values in changed.items() if n.startswith(_SEEN_BY_THE_MODEL)]
