"""Host batches onto the devices, waited for under the eyes of signals and of the watchdog."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator

import jax

from lska_jax.data.examples import Reader
from lska_jax.data.loader import BrokenImages, HostBatch
from lska_jax.data.reading_now import ReadingNow
from lska_jax.data.sources import Examples
from lska_jax.running import parallel
from lska_jax.running.agreed_stop import AgreedStop
from lska_jax.running.stop_signals import StopSignals
from lska_jax.running.watchdog import Watchdog
from lska_jax.training.reporting import Reporter


class TrainingStopped(RuntimeError):
    """The run cannot go on; what it has is saved, and the message says what to do."""


class Oversight:
    """What looks after a run while it works: signals to stop it, and a watchdog.

    Args:
      signals: of this process.
      mesh: all devices.
      stall_seconds: how long a batch or a step may take before that is reported.
      reporter: whom the run tells.
    """

    def __init__(
        self,
        signals: StopSignals,
        mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
        *,
        stall_seconds: int | float,
        reporter: Reporter,
    ) -> None:
        self.signals = signals
        self.stop = AgreedStop(signals, mesh)
        self.watchdog = Watchdog(stall_seconds, report=told_by_this_process(reporter))


class Feed:
    """Global batches of one split, on the devices.

    Args:
      source: the split.
      read: what turns its examples into the fields of a batch.
      oversight: of the run.
      reporter: whom broken images are told.
      is_training: whether ``read`` draws random numbers.
    """

    def __init__(
        self,
        source: Examples,
        read: Reader,
        *,
        oversight: Oversight,
        reporter: Reporter,
        is_training: bool,
    ) -> None:
        self.source = source
        self.reading = ReadingNow()
        self.broken = BrokenImages(
            source, read, report=told_by_this_process(reporter), is_training=is_training
        )
        self._oversight = oversight

    def batches(
        self,
        host_batches: Generator[HostBatch, None, None],
        sharding: jax.sharding.NamedSharding,
        *,
        global_batch_size: int,
        name: str,
    ) -> Generator[dict[str, jax.Array], None, None]:
        """Yield batches; reading ends with this generator.

        Args:
          host_batches: this process's rows.
          sharding: from ``lska_jax.running.parallel.batch_sharding``.
          global_batch_size: rows over all processes.
          name: what the batches are for, as in "training".

        Raises:
          StopRequested: a signal came while a batch was waited for, and no other process waits
            for this one.
        """
        with contextlib.closing(host_batches):
            while True:
                batch = self._wait_for(host_batches, name)
                if batch is None:
                    return
                self.broken.note(batch)
                arrays = {name: array for name, array in batch.items() if name != "index"}
                yield parallel.to_global(arrays, sharding, global_batch_size=global_batch_size)

    def too_many_broken(self, count: int) -> TrainingStopped:
        """Return the error for so many broken images."""
        return TrainingStopped(
            f"{count} of {len(self.source)} images of {self.source.name} are broken, more than "
            f"data.max_broken_fraction allows. Repair or remove them, or raise the fraction. "
            f"Met by process {jax.process_index()}:\n{self.broken.listing()}"
        )

    def _wait_for(
        self, host_batches: Generator[HostBatch, None, None], name: str
    ) -> HostBatch | None:
        watchdog = self._oversight.watchdog
        watchdog.note(
            f"waiting for a batch of {name}", detail=lambda: self.reading.describe(self.source)
        )
        can_stop = self._oversight.stop.can_be_alone
        with self._oversight.signals.interruptible() if can_stop else contextlib.nullcontext():
            batch = next(host_batches, None)
        watchdog.note(f"a step of {name}")
        return batch


def told_by_this_process(reporter: Reporter) -> Callable[[str], None]:
    """Return how this process tells something: only the first one owns the log."""
    if parallel.is_main_process():
        return reporter.message
    return lambda text: print(f"[process {jax.process_index()}] {text}", file=sys.stderr)
