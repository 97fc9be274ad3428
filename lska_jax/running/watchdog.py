"""Tell of a run that has come to a stop, and what it waits for.

A read from a network file system, a worker or a device that never answers leaves no message by
itself. The run is told of, with the Python stack of every thread, and goes on waiting: most such
stops pass, and ending the run would not make the disk answer.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

_GOES_ON = "The run goes on waiting; stacks of all threads are on standard error."


class Watchdog:
    """Watches that `note` is called often enough.

    Args:
      seconds: how long one activity may take before it is reported; again after twice as long,
        and so on. 0 watches nothing.
      report: called with one line, from a thread.
    """

    def __init__(self, seconds: int | float, *, report: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._report = report
        self._closed = threading.Event()
        self._activity: tuple[float, str, Callable[[], str]] | None = None
        self._reported_until = seconds
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
        if seconds > 0:
            self._thread.start()

    def note(self, activity: str, *, detail: Callable[[], str] = str) -> None:
        """Say what the run does from here on.

        Args:
          activity: as in "waiting for the batch of step 7".
          detail: called only where the activity takes too long; returns what more is known.
        """
        before, self._activity = self._activity, (time.monotonic(), activity, detail)
        if before is not None and self._reported_until > self._seconds:
            self._reported_until = self._seconds
            self._report(f"Going on after {time.monotonic() - before[0]:.0f} s of {before[1]}.")

    def close(self) -> None:
        """Stop watching."""
        self._activity = None
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            activity = self._activity
            if activity is None:
                continue
            started, what, detail = activity
            seconds = time.monotonic() - started
            if seconds < self._reported_until:
                continue
            while self._reported_until <= seconds:
                self._reported_until *= 2
            known = [f"STALLED: {seconds:.0f} s of {what}.", detail(), _GOES_ON]
            self._report(" ".join(filter(None, known)))
            if sys.__stderr__ is not None:
                faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
