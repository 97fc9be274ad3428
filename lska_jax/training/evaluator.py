"""The evaluations of a run's states: each on a split of its own, every example exactly once."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from lska_jax.data.sources import Examples
from lska_jax.running import parallel
from lska_jax.running.stop_signals import StopRequested
from lska_jax.training import run as building
from lska_jax.training.evaluators import (
    EvaluatorSettings,
    evaluator_settings,
    registered_evaluator,
)
from lska_jax.training.feeding import Feed, Oversight
from lska_jax.training.program import Programs
from lska_jax.training.reporting import Reporter
from lska_jax.training.run import Run
from lska_jax.training.state import TrainState

# Results are read this many batches late, so that reading never leaves the device without work.
_BATCHES_IN_FLIGHT = 2


class Evaluators:
    """All evaluators of a run, in the order of the config, the deciding one first.

    Args:
      run: its parts.
      sources: the split of each evaluator, by name.
      reporter: whom results are told.
      oversight: of the run.
    """

    def __init__(
        self,
        run: Run,
        sources: Mapping[str, Examples],
        reporter: Reporter,
        oversight: Oversight,
    ):
        self._run = run
        self._reporter = reporter
        self._programs = building.eval_programs(run)
        self._evaluators = {
            settings: (registered_evaluator(settings.type) or Evaluator)(
                run, sources[settings.name], settings, self._programs, reporter, oversight
            )
            for settings in evaluator_settings(run.config)
        }

    def compile(self) -> None:
        """Compile the evaluation step, once for all evaluators."""
        with self._reporter.progress("compiling the evaluation step"):
            self._programs.compile()

    def due(self, step: int) -> list[EvaluatorSettings]:
        """Return those that evaluate the state after a step."""
        run = self._run
        return [
            settings
            for settings in self._evaluators
            if settings.is_due(
                step, steps_per_epoch=run.steps_per_epoch, total_steps=run.total_steps
            )
        ]

    @property
    def all(self) -> list[EvaluatorSettings]:
        """Every evaluator."""
        return [*self._evaluators]

    @property
    def main(self) -> list[EvaluatorSettings]:
        """The evaluator that decides which checkpoint is best, alone."""
        return self.all[:1]

    def evaluate(
        self, due: Sequence[EvaluatorSettings], state: TrainState, *, step: int
    ) -> dict[str, float]:
        """Return and report the metrics of some evaluators, as "NAME/METRIC".

        Raises:
          StopRequested: the run was asked to stop; on every process at the same batch.
          TrainingStopped: too many images are broken.
        """
        evaluation: dict[str, float] = {}
        for settings in due:
            evaluation |= self._evaluators[settings].evaluate(state, step=step)
        return evaluation


class Evaluator:
    """Evaluates states of a run on one split with the task's metrics.

    Args:
      run: its parts.
      source: the split.
      settings: the evaluator's name, among others.
      programs: the compiled evaluation step.
      reporter: whom results are told.
      oversight: of the run.
    """

    def __init__(
        self,
        run: Run,
        source: Examples,
        settings: EvaluatorSettings,
        programs: Programs,
        reporter: Reporter,
        oversight: Oversight,
    ):
        self._run = run
        self._name = settings.name
        self._programs = programs
        self._reporter = reporter
        self._oversight = oversight
        self._feed = Feed(
            source,
            run.task.eval_reader(),
            oversight=oversight,
            reporter=reporter,
            is_training=False,
        )

    def evaluate(self, state: TrainState, *, step: int) -> dict[str, float]:
        """Return and report the metrics of the state's averaged or own parameters.

        Raises:
          StopRequested: the run was asked to stop; on every process at the same batch.
          TrainingStopped: too many images are broken.
        """
        task, config = self._run.task, self._run.config
        size = config.training.eval_batch_size
        sharding = parallel.batch_sharding(self._run.mesh)
        source = self._feed.source
        batches = task.eval_batches(
            source,
            global_batch_size=size,
            rows=parallel.local_rows(sharding, size),
            num_workers=building.num_workers(config),
            reading=self._feed.reading,
        )
        params, stats = state.for_evaluation()
        in_flight: deque[tuple[jax.Array, Any]] = deque()
        counted, total = 0, None

        def read_oldest() -> None:
            nonlocal counted, total
            rows, part = jax.device_get(in_flight.popleft())
            counted += int(rows)
            total = part if total is None else task.add(total, part)

        placed = self._feed.batches(batches, sharding, global_batch_size=size, name="evaluation")
        with (
            self._reporter.progress("evaluating", -(-len(source) // size)) as progress,
            contextlib.closing(placed),
        ):
            for batch in placed:
                if self._oversight.stop.is_agreed():
                    raise StopRequested
                in_flight.append(self._programs(params, stats, batch))
                if len(in_flight) > _BATCHES_IN_FLIGHT:
                    read_oldest()
                progress.advance()
        while in_flight:
            read_oldest()
        broken = len(source) - counted
        if broken > config.data.max_broken_fraction * len(source):
            raise self._feed.too_many_broken(broken)
        means = task.means(total)
        evaluation = {f"{self._name}/{metric}": value for metric, value in means.items()}
        self._reporter.evaluation(
            step, evaluation, evaluator=self._name, shown=task.describe(means)
        )
        if parallel.is_main_process():
            folder = self._reporter.workdir / "predictions" / self._name
            pictures = task.keep_predictions(total, source, folder)
            self._reporter.pictures(
                step, {f"{self._name}/{name}": pixels for name, pixels in pictures.items()}
            )
        return evaluation
