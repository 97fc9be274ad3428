"""Drives the compiled steps of a run: batches in, reports and checkpoints out."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import jax

from lska_jax.running import parallel
from lska_jax.running.folder_lock import FolderLock
from lska_jax.running.huge_pages import release_freed_memory
from lska_jax.running.stop_signals import StopRequested
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import Checkpointer
from lska_jax.training.early_stopping import Patience
from lska_jax.training.evaluator import Evaluators
from lska_jax.training.evaluators import EvaluatorSettings, main_means
from lska_jax.training.feeding import Feed, Oversight, TrainingStopped
from lska_jax.training.reporting import Reporter
from lska_jax.training.run import Run, Sources
from lska_jax.training.run_record import make_record
from lska_jax.training.state import TrainState
from lska_jax.training.teaching import prepare_task

# Metrics are read this many steps late, so that reading them never leaves the device without work.
_STEPS_IN_FLIGHT = 2
# Steps after which each allocation has its place.
_STEPS_TO_SETTLE = 3


class Interrupted(RuntimeError):
    """The run was asked to stop and has saved; the same command goes on."""


class Trainer:
    """Drives the compiled steps of a run: batches in, reports and checkpoints out."""

    def __init__(
        self,
        run: Run,
        sources: Sources,
        checkpointer: Checkpointer,
        reporter: Reporter,
        oversight: Oversight,
        *,
        lock: FolderLock | None = None,
    ):
        """Take a run's parts; ``lock`` is held on its folder."""
        self._run = run
        self._class_names = sources.class_names
        self._lock = lock
        self._checkpointer = checkpointer
        self._reporter = reporter
        self._oversight = oversight
        self._constants = prepare_task(run, sources)
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
        self._patience = Patience(run.config.training.patience)

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
        self._patience = Patience(self._run.config.training.patience, metadata.get("patience"))
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
        release_freed_memory()
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
        if step < run.total_steps and not self._patience.is_over:
            evaluation = self._train_from(step, state)
        self._checkpointer.wait()
        self._check_folder()
        self._say_finished(evaluation)
        return evaluation

    def _say_finished(self, evaluation: Mapping[str, float]) -> None:
        describe = self._run.task.describe
        directory = os.path.relpath(self._checkpointer.directory)
        best = self._checkpointer.best_step()
        known = ""
        if best is not None:
            of_best = main_means(self._checkpointer.metadata(best)["evaluation"])
            known = f", the best is step {best} ({describe(of_best)})"
        workdir = os.path.dirname(directory) or "."
        if self._patience.is_over:
            self._reporter.message(f"Stopped early: {self._patience.describe()}.")
        commands = "\n  or ".join(self._run.task.next_commands(workdir))
        self._reporter.message(
            f"Finished: {describe(main_means(evaluation))}; checkpoints in {directory}{known}.\n"
            f"Next, with the best step: {commands}"
        )

    def _train_from(self, start: int, state: TrainState) -> dict[str, float]:
        in_flight: deque[tuple[int, dict[str, jax.Array]]] = deque()
        evaluation: dict[str, float] = {}
        step = start
        steps = range(start + 1, self._run.total_steps + 1)
        batches = self._each_batch()
        try:
            for step, batch in zip(steps, batches, strict=True):
                state, metrics = self._train_step(state, {**batch, **self._constants})
                in_flight.append((step, metrics))
                if step == start + _STEPS_TO_SETTLE:
                    release_freed_memory()
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
                    if self._patience.is_over:
                        batches.close()
                        break
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
        if means := main_means(evaluation):
            best = self._run.task.best
            self._patience.note(best.score(means[best.metric]))
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

    def _check_folder(self) -> None:
        if self._lock is not None:
            self._lock.check()

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
        if step % self._run.config.training.log_every_steps == 0:
            self._check_folder()
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
        self._check_folder()
        self._oversight.watchdog.note(f"saving step {step}")
        record = make_record(
            self._run,
            class_names=self._class_names,
            evaluation=evaluation,
            is_evaluation_due=is_evaluation_due,
            open_record=self._reporter.open_record(),
            broken_in_epoch=self._broken_in_epoch,
            patience=self._patience.record(),
        )
        best, means = self._run.task.best, main_means(evaluation)
        self._checkpointer.save(
            step,
            state,
            metadata=record,
            metric=best.score(means[best.metric]) if means else None,
            is_replacing=is_replacing,
        )
