"""Evaluate a checkpoint without training."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from lska_jax.running.parallel import is_main_process, place, state_sharding
from lska_jax.running.stop_signals import StopRequested, StopSignals
from lska_jax.running.whole_file import write_whole
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import load_tree
from lska_jax.training.checkpoint.tree_difference import check_same_tree
from lska_jax.training.evaluator import Evaluators
from lska_jax.training.feeding import Oversight
from lska_jax.training.finetune import evaluation_arrays
from lska_jax.training.loop import make_reporter
from lska_jax.training.run_record import (
    MAPPED_CLASSES,
    UNKNOWN_CLASSES,
    changed_settings,
    class_names_of,
)
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
      checkpoint: a run's folder, its checkpoints folder or one step's folder.
      signals: requests to stop, of a program that listens to them; None is never asked.

    Returns:
      What each measures, as ``lska_jax.training.loop.train`` returns it.

    Raises:
      FileNotFoundError: there is no checkpoint.
      CheckpointMismatch: it is of another model or class count; every difference is listed.
      ValueError: data or devices do not fit the config, or the data has other classes.
      Interrupted: a signal asked for it; there is nothing to save.
    """
    loaded = load_tree(checkpoint, step="best")
    sources = building.open_evaluation(building.build_task(config))
    # The training split need not be here; the checkpoint knows how long its epoch was.
    steps_per_epoch = loaded.metadata.get("steps_per_epoch", 1)
    run = building.build_run(
        config, num_train_examples=steps_per_epoch * config.training.batch_size
    )
    wanted = {**run.state.params, **run.state.batch_stats}
    arrays = evaluation_arrays(loaded.tree)
    check_same_tree(arrays, wanted, where=str(loaded.folder))
    names = class_names_of(loaded.metadata)
    trained = sources
    if names is not None:
        trained = building.in_class_order(run.task, sources, names, whose=str(loaded.folder))
    placed = {
        path: place(arrays[path], state_sharding(run.mesh, leaf)) for path, leaf in wanted.items()
    }
    state = run.state._replace(
        params={path: placed[path] for path in run.state.params},
        batch_stats={path: placed[path] for path in run.state.batch_stats},
        ema={},
    )
    signals = signals or StopSignals()
    with make_reporter(run, Path(workdir), start_step=loaded.step, writers=()) as reporter:
        shown = ", ".join(source.name for source in sources.values())
        reporter.message(f"Evaluating {loaded.folder} on {shown}.")
        if names is None and run.task.class_names(next(iter(sources.values()))) is not None:
            reporter.message(UNKNOWN_CLASSES)
        if any(trained[name] is not source for name, source in sources.items()):
            reporter.message(MAPPED_CLASSES)
        for name, (before, now) in changed_settings(loaded.metadata, config).items():
            if name.startswith(_SEEN_BY_THE_MODEL):
                reporter.message(f"The checkpoint was trained with {name}={before}, not {now}.")
        oversight = Oversight(
            signals, run.mesh, stall_seconds=config.training.stall_seconds, reporter=reporter
        )
        evaluators = Evaluators(run, trained, reporter, oversight)
        evaluators.compile()
        signals.keep_requests()
        with oversight.watchdog:
            try:
                evaluation = evaluators.evaluate(evaluators.all, state, step=loaded.step)
            except StopRequested:
                name = signals.name or "a signal to another process"
                raise Interrupted(f"Interrupted by {name}: no evaluation was written.") from None
    if is_main_process():
        record = {"checkpoint": str(loaded.folder), "step": loaded.step, **evaluation}
        write_whole(Path(workdir) / "evaluation.json", json.dumps(record, indent=2) + "\n")
    return evaluation
