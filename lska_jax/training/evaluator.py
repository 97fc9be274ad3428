"""The evaluation of a state on a run's evaluation split, every example exactly once."""

from __future__ import annotations

import contextlib
from collections import deque

import jax

from lska_jax.data.loader import eval_batches
from lska_jax.data.sources import Source
from lska_jax.running import parallel
from lska_jax.running.stop_signals import StopRequested
from lska_jax.tasks.accuracy import EvalSums
from lska_jax.training import run as building
from lska_jax.training.feeding import Feed, Oversight
from lska_jax.training.reporting import Reporter
from lska_jax.training.run import Run
from lska_jax.training.state import TrainState

# Sums are read this many batches late, so that reading them never leaves the device without work.
_BATCHES_IN_FLIGHT = 2


class Evaluator:
    """Evaluates states of a run on its evaluation split, every example exactly once."""

    def __init__(self, run: Run, source: Source, reporter: Reporter, oversight: Oversight):
        self._run = run
        self._reporter = reporter
        self._oversight = oversight
        self._feed = Feed(
            source, building.eval_transform(run.config), oversight=oversight, reporter=reporter
        )

    def compile(self) -> None:
        """Compile the evaluation step, once."""
        with self._reporter.progress("compiling the evaluation step"):
            self._eval_step = building.compile_eval_step(self._run)

    def evaluate(self, state: TrainState, *, step: int) -> dict[str, float]:
        """Return and report top-1, top-5 and loss of the state's averaged or own parameters.

        Raises:
          StopRequested: the run was asked to stop; on every process at the same batch.
          TrainingStopped: too many images are broken.
        """
        config = self._run.config
        size = config.training.eval_batch_size
        sharding = parallel.batch_sharding(self._run.mesh)
        source = self._feed.source
        batches = eval_batches(
            source,
            self._feed.transform,
            global_batch_size=size,
            rows=parallel.local_rows(sharding, size),
            num_workers=building.num_workers(config),
            reading=self._feed.reading,
        )
        params, stats = state.for_evaluation()
        in_flight: deque[EvalSums] = deque()
        total = EvalSums.zero()
        placed = self._feed.batches(batches, sharding, global_batch_size=size, name="evaluation")
        with (
            self._reporter.progress("evaluating", -(-len(source) // size)) as progress,
            contextlib.closing(placed),
        ):
            for batch in placed:
                if self._oversight.stop.is_agreed():
                    raise StopRequested
                in_flight.append(self._eval_step(params, stats, batch))
                if len(in_flight) > _BATCHES_IN_FLIGHT:
                    total += jax.device_get(in_flight.popleft())
                progress.advance()
        for sums in in_flight:
            total += jax.device_get(sums)
        broken = len(source) - int(total.examples)
        if broken > config.data.max_broken_fraction * len(source):
            raise self._feed.too_many_broken(broken)
        evaluation = {f"eval/{name}": value for name, value in total.means().items()}
        self._reporter.evaluation(step, evaluation)
        return evaluation
