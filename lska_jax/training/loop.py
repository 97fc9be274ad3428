"""The training loop, in the order in which things happen."""

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

from lska_jax.running import parallel
from lska_jax.running.stop_signals import StopRequested, StopSignals
from lska_jax.running.whole_file import write_whole
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import Checkpointer, check_writable, tree_bytes
from lska_jax.training.checkpoint.load_tree import CHECKPOINTS_FOLDER
from lska_jax.training.evaluator import Evaluators
from lska_jax.training.evaluators import EvaluatorSettings, main_means
from lska_jax.training.feeding import Feed, Oversight, TrainingStopped
from lska_jax.training.finetune import load_for_finetuning
from lska_jax.training.metric_writers import flatten
from lska_jax.training.reporting import Reporter
from lska_jax.training.run import Run, Sources
from lska_jax.training.start_up import StartUp
from lska_jax.training.state import TrainState, host_state, place_state

# Metrics are read this many steps late, so that reading them never leaves the device without work.
_STEPS_IN_FLIGHT = 2


class Interrupted(RuntimeError):
    """The run was asked to stop and has saved; the same command goes on."""


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
      Interrupted: a signal asked for it; every step done is saved.
    """
    workdir, signals, start_up = Path(workdir), signals or StopSignals(), start_up or StartUp()
    start_up.mark("imports")
    sources = building.open_sources(building.build_task(config))
    start_up.mark("data")
    run = building.build_run(config, num_train_examples=len(sources.train))
    with Checkpointer(
        workdir / CHECKPOINTS_FOLDER,
        keep_latest=config.training.keep_latest,
        keep_best=config.training.keep_best,
        save_seconds=config.training.save_seconds,
    ) as checkpointer:
        # One more than are kept: an old step goes when the new one is complete.
        kept = config.training.keep_latest + config.training.keep_best + 1
        missing = max(1, kept - len(checkpointer.all_steps()))
        check_writable(workdir, bytes_needed=missing * tree_bytes(run.state))
        start_step = checkpointer.latest_intact_step() or 0
        metadata = checkpointer.metadata(start_step) if start_step else {}
        with make_reporter(
            run,
            workdir,
            start_step=start_step,
            is_evaluation_due=metadata.get("is_evaluation_due", False),
            writers=config.training.writers,
        ) as reporter:
            checkpointer.report = reporter.message
            state = _restore_or_initialise(run, checkpointer, reporter)
            _save_config(config, workdir, reporter)
            is_evaluation_due = metadata.get("is_evaluation_due", False)
            if start_step >= run.total_steps and not is_evaluation_due:
                reporter.message(f"The run in {workdir} is complete: {metadata['evaluation']}")
                return metadata["evaluation"]
            oversight = Oversight(
                signals,
                run.mesh,
                stall_seconds=config.training.stall_seconds,
                reporter=reporter,
            )
            trainer = Trainer(run, sources, checkpointer, reporter, oversight)
            start_up.mark("model and state")
            trainer.prepare(start_step, metadata, mark=start_up.mark)
            reporter.message(f"Ready after {start_up.summary()}.")
            signals.keep_requests()
            with oversight.watchdog:
                return trainer.fit(state, is_evaluation_due=is_evaluation_due)


class Trainer:
    """Drives the compiled steps of a run: batches in, reports and checkpoints out."""

    def __init__(
        self,
        run: Run,
        sources: Sources,
        checkpointer: Checkpointer,
        reporter: Reporter,
        oversight: Oversight,
    ):
        self._run = run
        self._checkpointer = checkpointer
        self._reporter = reporter
        self._oversight = oversight
        self._train_step = building.train_programs(run)
        self._evaluators = Evaluators(run, sources.evaluation, reporter, oversight)
        self._feed = Feed(
            sources.train,
            run.task.train_reader(),
            oversight=oversight,
            reporter=reporter,
            is_training=True,
        )
        self._broken_in_epoch = 0
        self._bad_steps = 0

    def prepare(
        self,
        first_step: int,
        metadata: Mapping[str, Any],
        *,
        mark: Callable[[str], None] = lambda part: None,
    ) -> None:
        """Start reading, then compile both steps; reading errors show before the compile.

        Args:
          first_step: steps done.
          metadata: what the checkpoint of that step was saved with; empty for a fresh run.
          mark: called with the name of each part when it is over.
        """
        if "open_record" in metadata:
            self._reporter.continue_record(metadata["open_record"])
            self._broken_in_epoch = metadata["broken_in_epoch"]
        if first_step < self._run.total_steps:
            with self._reporter.progress("reading the first batch"):
                self._batches = self._device_batches(first_step)
                self._read_before = [next(self._batches)]
            mark("first batch")
            with self._reporter.progress("compiling the train step"):
                self._train_step.compile()
            mark("train step")
        self._evaluators.compile()
        mark("evaluation step")

    def fit(self, state: TrainState, *, is_evaluation_due: bool = False) -> dict[str, float]:
        """Train from the state's step to the end and return the last evaluation.

        Args:
          state: where to go on.
          is_evaluation_due: whether that step was to be evaluated and its evaluation was
            interrupted.

        Raises:
          Interrupted: a signal asked for it; every step done is saved.
        """
        run = self._run
        step = int(state.step)
        evaluation: dict[str, float] = {}
        if is_evaluation_due:
            # Where the config has changed, none may be due; the deciding one then is.
            due = self._evaluators.due(step) or self._evaluators.main
            evaluation = self._evaluate_and_save(step, state, due, is_replacing=True)
        if step < run.total_steps:
            evaluation = self._train_from(step, state)
        self._checkpointer.wait()
        self._reporter.message(
            f"Finished: {run.task.describe(main_means(evaluation))}; "
            f"checkpoints in {os.path.relpath(self._checkpointer.directory)}."
        )
        return evaluation

    def _train_from(self, start: int, state: TrainState) -> dict[str, float]:
        in_flight: deque[tuple[int, dict[str, jax.Array]]] = deque()
        evaluation: dict[str, float] = {}
        step = start
        steps = range(start + 1, self._run.total_steps + 1)
        try:
            for step, batch in zip(steps, self._each_batch(), strict=True):
                state, metrics = self._train_step(state, batch)
                in_flight.append((step, metrics))
                while len(in_flight) > _STEPS_IN_FLIGHT:
                    self._report(*in_flight.popleft())
                is_stopping = self._oversight.stop.is_agreed()
                due = self._evaluators.due(step)
                if is_stopping or due or self._is_saved_between(step):
                    while in_flight:
                        self._report(*in_flight.popleft())
                if is_stopping:
                    self._save_and_leave(step, state, is_evaluation_due=bool(due))
                if due:
                    evaluation = self._evaluate_and_save(step, state, due)
                elif self._is_saved_between(step) and not self._bad_steps:
                    # Saves amid bad steps would push out the good ones.
                    self._save(step, state)
        except StopRequested:
            # A batch was waited for, and no step is in hand.
            while in_flight:
                self._report(*in_flight.popleft())
            self._save_and_leave(step, state)
        return evaluation

    def _evaluate_and_save(
        self,
        step: int,
        state: TrainState,
        due: Sequence[EvaluatorSettings],
        *,
        is_replacing: bool = False,
    ) -> dict[str, float]:
        try:
            evaluation = self._evaluators.evaluate(due, state, step=step)
        except StopRequested:
            self._save_and_leave(step, state, is_evaluation_due=True)
        if not self._bad_steps or step == self._run.total_steps:
            self._save(step, state, evaluation, is_replacing=is_replacing)
        return evaluation

    def _save_and_leave(
        self, step: int, state: TrainState, *, is_evaluation_due: bool = False
    ) -> NoReturn:
        self._save(step, state, is_evaluation_due=is_evaluation_due)
        self._oversight.watchdog.note(f"waiting for the save of step {step}")
        self._checkpointer.wait()
        raise Interrupted(
            f"Interrupted by {self._oversight.signals.name or 'a signal to another process'} "
            f"after step {step}, which is saved."
        )

    def _each_batch(self) -> Generator[dict[str, jax.Array], None, None]:
        with contextlib.closing(self._batches):
            # Popped, not kept: a batch held for the whole run would cost the devices its memory.
            yield self._read_before.pop()
            yield from self._batches

    def _is_saved_between(self, step: int) -> bool:
        every = self._run.config.training.checkpoint_every_steps
        return every > 0 and step % every == 0

    def _device_batches(self, first_step: int) -> Generator[dict[str, jax.Array], None, None]:
        config = self._run.config
        size = config.training.batch_size
        sharding = parallel.batch_sharding(self._run.mesh)
        batches = self._run.task.train_batches(
            self._feed.source,
            global_batch_size=size,
            seed=config.training.seed,
            rows=parallel.local_rows(sharding, size),
            start_step=first_step,
            stop_step=self._run.total_steps,
            num_workers=building.num_workers(config),
            reading=self._feed.reading,
        )
        return self._feed.batches(batches, sharding, global_batch_size=size, name="training")

    def _report(self, step: int, device_metrics: Mapping[str, jax.Array]) -> None:
        metrics = {name: float(value) for name, value in device_metrics.items()}
        bad_steps, broken = int(metrics.pop("bad_steps")), int(metrics.pop("broken"))
        self._reporter.train(step, metrics)
        self._check_bad_steps(step, bad_steps)
        self._check_broken(step, broken)

    def _check_bad_steps(self, step: int, bad_steps: int) -> None:
        self._bad_steps = bad_steps
        if not bad_steps:
            return
        limit = self._run.config.training.max_bad_steps
        self._reporter.message(
            f"Step {step}: loss or gradient not finite, update skipped ({bad_steps} in a row, "
            f"the run stops at {limit})"
        )
        if bad_steps < limit:
            return
        self._checkpointer.wait()
        latest = self._checkpointer.latest_step()
        good = "there is no checkpoint yet" if latest is None else f"step {latest} is kept"
        raise TrainingStopped(
            f"{bad_steps} steps in a row were not finite, up to step {step}. Of good checkpoints "
            f"in {self._checkpointer.directory}, {good}. Lower optimizer.learning_rate, set "
            "optimizer.clip_norm, or compute in float32 (model.dtype); then run the same command."
        )

    def _check_broken(self, step: int, broken: int) -> None:
        if (step - 1) % self._run.steps_per_epoch == 0:
            self._broken_in_epoch = 0
        self._broken_in_epoch += broken
        limit = self._run.config.data.max_broken_fraction * len(self._feed.source)
        if self._broken_in_epoch > limit:
            raise self._feed.too_many_broken(self._broken_in_epoch)

    def _save(
        self,
        step: int,
        state: TrainState,
        evaluation: Mapping[str, float] = MappingProxyType({}),
        *,
        is_evaluation_due: bool = False,
        is_replacing: bool = False,
    ) -> None:
        self._oversight.watchdog.note(f"saving step {step}")
        metadata = {
            "config": self._run.config.to_dict(),
            "evaluation": dict(evaluation),
            "is_evaluation_due": is_evaluation_due,
            "steps_per_epoch": self._run.steps_per_epoch,
            # What continues a run besides its state: the means and counts in the making.
            "open_record": self._reporter.open_record(),
            "broken_in_epoch": self._broken_in_epoch,
        }
        best, means = self._run.task.best, main_means(evaluation)
        self._checkpointer.save(
            step,
            state,
            metadata=metadata,
            metric=best.score(means[best.metric]) if means else None,
            is_replacing=is_replacing,
        )


def make_reporter(
    run: Run,
    workdir: Path,
    *,
    start_step: int,
    writers: Sequence[str],
    is_evaluation_due: bool = False,
) -> Reporter:
    """Return the reporter of a run; only the first process writes."""
    return Reporter(
        workdir,
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        global_batch_size=run.config.training.batch_size,
        start_step=start_step,
        is_evaluation_due=is_evaluation_due,
        is_main=parallel.is_main_process(),
        log_every_steps=run.config.training.log_every_steps,
        writers=writers,
        run_name=workdir.name,
        config=run.config.to_dict(),
    )


def _restore_or_initialise(run: Run, checkpointer: Checkpointer, reporter: Reporter) -> TrainState:
    if checkpointer.latest_step() is not None:
        state, _ = checkpointer.restore(run.state)
        reporter.message(f"Resuming at step {int(state.step)} of {run.total_steps}.")
        return state
    # On the host: an accelerator would compile every draw, and FSDP may need its memory.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        model = building.build_model(run.config)
    finetune_from = run.config.training.finetune_from
    if finetune_from:
        reporter.message(load_for_finetuning(model, finetune_from))
    use_ema = run.config.training.ema_decay > 0
    state = place_state(host_state(model, run.optimizer, use_ema=use_ema), run.mesh)
    count = sum(int(np.prod(x.shape)) for x in state.params.values())
    reporter.message(
        f"Training {building.describe_model(run.config)} ({count:,} parameters) for "
        f"{run.total_steps:,} steps of {run.config.training.batch_size} images on "
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s)."
    )
    return state


def _save_config(config: ConfigDict, workdir: Path, reporter: Reporter) -> None:
    """Keep the resolved config beside the run, and say what has changed since the last start."""
    if not parallel.is_main_process():
        return
    path = workdir / "config.json"
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    if path.exists():
        before, now = (flatten(json.loads(each)) for each in (path.read_text(), text))
        for name, value in now.items():
            # A name that is new has come with the program, at its default.
            if before.get(name, value) != value:
                reporter.message(
                    f"Config changed since the last start: {name}: {before[name]} -> {value}"
                )
    write_whole(path, text)
