"""The training loop, in the order in which things happen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from lska_jax.data.notes import heard_notes
from lska_jax.running import parallel
from lska_jax.running.environment import changed_compiler_options, describe_environment
from lska_jax.running.folder_lock import FolderLock
from lska_jax.running.stop_signals import StopSignals
from lska_jax.running.whole_file import write_whole
from lska_jax.tasks.class_order import describe_difference, same_order
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import Checkpointer, check_writable, tree_bytes
from lska_jax.training.checkpoint.errors import CheckpointMismatch
from lska_jax.training.checkpoint.load_tree import CHECKPOINTS_FOLDER
from lska_jax.training.early_stopping import Patience
from lska_jax.training.evaluators import main_means
from lska_jax.training.feeding import Oversight
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.reporting import Reporter
from lska_jax.training.run import Run, Sources
from lska_jax.training.run_record import (
    MAPPED_CLASSES,
    UNKNOWN_CLASSES,
    changed_settings,
    check_finished_alike,
    check_same_schedule,
    class_names_of,
    open_steps,
    record_problems,
)
from lska_jax.training.start_up import StartUp
from lska_jax.training.state import TrainState, host_state, place_state
from lska_jax.training.trainer import Trainer

CONFIG_NAME = "config.json"
ENVIRONMENT_NAME = "environment.json"


def train(
    config: ConfigDict,
    *,
    workdir: str | Path,
    signals: StopSignals | None = None,
    start_up: StartUp | None = None,
) -> dict[str, float]:
    """Train to the end of the config's schedule, from where the workdir stands.

    Args:
      config: checked by ``lska_jax.training.config_check.check_config``.
      workdir: folder of the run; the same folder again resumes at its latest checkpoint.
      signals: requests to stop, of a program that listens to them; None is never asked.
      start_up: the clock of the start; None counts from the start of the process.

    Returns:
      The last evaluation, by evaluator and metric, as "eval/top1" in [0, 1].

    Raises:
      ValueError: the data or the devices do not fit the config.
      OSError: the workdir cannot be written or is too small.
      TrainingStopped: too many non-finite steps or broken images.
      InUse: another process trains in the workdir.
      Interrupted: a signal asked for it; every step done is saved.
    """
    workdir, signals, start_up = Path(workdir), signals or StopSignals(), start_up or StartUp()
    start_up.mark("imports")
    with heard_notes() as notes:
        sources = building.open_sources(building.build_task(config))
    start_up.mark("data")
    run = building.build_run(config, num_train_examples=len(sources.train))
    check_writable(workdir, bytes_needed=0)
    with (
        FolderLock(workdir, what="run", is_holder=parallel.is_main_process()) as lock,
        Checkpointer(
            workdir / CHECKPOINTS_FOLDER,
            keep_latest=config.training.keep_latest,
            keep_best=config.training.keep_best,
            save_seconds=config.training.save_seconds,
            record_problems=record_problems,
        ) as checkpointer,
    ):
        # One more than are kept: an old step goes when the new one is complete.
        kept = config.training.keep_latest + config.training.keep_best + 1
        missing = max(1, kept - len(checkpointer.all_steps()))
        check_writable(workdir, bytes_needed=missing * tree_bytes(run.state))
        latest = _restore_latest(run, checkpointer, sources.class_names)
        record, start_step = latest.record, latest.step
        is_evaluation_due = record.get("is_evaluation_due", False)
        # All that a start refuses comes before anything is written.
        if start_step:
            check_same_schedule(record, run, step=start_step, workdir=workdir)
        patience = Patience(config.training.patience, record.get("patience"))
        has_ended = start_step >= run.total_steps or patience.is_over
        if has_ended:
            check_finished_alike(record, config, step=start_step, workdir=workdir)
        names = class_names_of(record)
        trained = sources
        if names is not None:
            whose = f"the run in {workdir}"
            trained = building.sources_as_trained(run.task, sources, names, whose=whose)
        with make_reporter(
            run,
            workdir,
            start_step=start_step,
            is_evaluation_due=is_evaluation_due,
            writers=config.training.writers,
            open_steps=open_steps(record),
        ) as reporter:
            checkpointer.report = reporter.message
            for text in notes:
                reporter.note(text)
            if has_ended and not is_evaluation_due:
                shown = run.task.describe(main_means(record["evaluation"]))
                reporter.message(f"The run in {workdir} is complete: {shown}")
                return record["evaluation"]
            if start_step:
                reporter.message(f"Resuming at step {start_step} of {run.total_steps}.")
                if names is None and sources.class_names is not None:
                    reporter.message(UNKNOWN_CLASSES)
                elif trained.train is not sources.train:
                    reporter.message(MAPPED_CLASSES)
            state = latest.state or initial_state(run, sources, reporter)
            _save_config(config, record, workdir, reporter)
            oversight = Oversight(
                signals,
                run.mesh,
                stall_seconds=config.training.stall_seconds,
                reporter=reporter,
            )
            trainer = Trainer(run, trained, checkpointer, reporter, oversight, lock=lock)
            start_up.mark("model and state")
            trainer.prepare(start_step, record, mark=start_up.mark)
            reporter.message(f"Ready after {start_up.summary()}.")
            signals.keep_requests()
            with oversight.watchdog:
                return trainer.fit(state, is_evaluation_due=is_evaluation_due)


def make_reporter(
    run: Run,
    workdir: Path,
    *,
    start_step: int,
    writers: Sequence[str],
    is_evaluation_due: bool = False,
    open_steps: int | None = None,
) -> Reporter:
    """Return the reporter of a run; only the first process writes."""
    return Reporter(
        workdir,
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        global_batch_size=run.config.training.batch_size,
        start_step=start_step,
        is_evaluation_due=is_evaluation_due,
        open_steps=open_steps,
        is_main=parallel.is_main_process(),
        log_every_steps=run.config.training.log_every_steps,
        writers=writers,
        run_name=workdir.name,
        config=run.config.to_dict(),
    )


class _Latest(NamedTuple):
    """Where a workdir stands: the state of its latest intact step, or None before the first."""

    step: int
    state: TrainState | None
    record: dict[str, Any]


def _restore_latest(
    run: Run, checkpointer: Checkpointer, class_names: Sequence[str] | None
) -> _Latest:
    step = checkpointer.latest_intact_step()
    if step is None:
        return _Latest(0, None, {})
    record = checkpointer.metadata(step)
    try:
        state, _ = checkpointer.restore(run.state, step=step)
    except CheckpointMismatch as error:
        if changed := changed_settings(record, run.config):
            listed = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in changed.items())
            error = CheckpointMismatch(
                f"{error}\nThe config has changed since: {listed}. Give it what it had, or another "
                "--workdir."
            )
        trained = class_names_of(record)
        if trained is None or class_names is None or same_order(class_names, trained):
            raise error from None
        # The first of the differences, and the reason of others.
        difference = describe_difference(
            class_names, trained, what="the data", other_what="the run"
        )
        raise CheckpointMismatch(f"{error}\nThe classes differ too: {difference}.") from None
    return _Latest(step, state, record)


def initial_state(run: Run, sources: Sources, reporter: Reporter) -> TrainState:
    """Return the state that a run starts from, fresh or fine-tuned, on its devices."""
    # On the host: an accelerator would compile every draw, and FSDP may need its memory.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        model = building.build_model(run.config)
    finetune_from = run.config.training.finetune_from
    if finetune_from:
        reporter.message(load_for_finetuning(model, finetune_from, class_names=sources.class_names))
    use_ema = run.config.training.ema_decay > 0
    state = place_state(host_state(model, run.optimizer, use_ema=use_ema), run.mesh)
    count = sum(int(np.prod(x.shape)) for x in state.params.values())
    reporter.message(
        f"Training {building.describe_model(run.config)} ({count:,} parameters) for "
        f"{run.total_steps:,} steps of {run.config.training.batch_size} images on "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)."
    )
    return state


def _save_config(
    config: ConfigDict, record: Mapping[str, Any], workdir: Path, reporter: Reporter
) -> None:
    """Keep the resolved config beside the run, and say what has changed since the checkpoint."""
    if not parallel.is_main_process():
        return
    for name, (before, now) in changed_settings(record, config).items():
        reporter.message(f"Config changed since the last start: {name}: {before} -> {now}")
    path = workdir / CONFIG_NAME
    if path.exists() and not _is_json_object(path):
        reporter.message(
            f"{path} is damaged and is written anew; every checkpoint has its own copy."
        )
    write_whole(path, json.dumps(config.to_dict(), indent=2) + "\n")
    environment, path = describe_environment(), workdir / ENVIRONMENT_NAME
    if change := changed_compiler_options(path, environment):
        reporter.message(change)
    write_whole(path, json.dumps(environment, indent=2) + "\n")


def _is_json_object(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False
