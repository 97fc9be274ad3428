"""A save that is being written in the background: how long it takes, and how long it may."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class SaveTooSlow(RuntimeError):
    """A save is not complete after the time it may take; it cannot be called back."""


class PendingSave:
    """One save between its start and its end.

    Args:
      step: the global step.
      response: orbax's answer to the start, with ``result`` and ``on_complete``.
      started: `time.monotonic()` before the arrays were copied.
      seconds: how long the save may take.
      report: called with one line when the step is complete, from another thread.
    """

    def __init__(
        self,
        step: int,
        response: Any,
        *,
        started: float,
        seconds: int | float,
        report: Callable[[str], None] | None,
    ) -> None:
        self.step = step
        self._response = response
        self._started = started
        self._seconds = seconds
        if report is not None:
            response.on_complete(
                lambda _: report(f"Saved step {step} in {time.monotonic() - started:.1f} s.")
            )

    def wait(self) -> None:
        """Wait until the step is complete.

        Raises:
          SaveTooSlow: the time is over.
          Exception: whatever Orbax raises where the step could not be written.
        """
        left = self._started + self._seconds - time.monotonic()
        try:
            self._response.result(timeout=max(left, 0.0))
        except TimeoutError as error:
            if time.monotonic() - self._started < self._seconds:
                raise
            raise SaveTooSlow(
                f"not complete after {self._seconds:.0f} s; raise training.save_seconds where the "
                "disk is slow"
            ) from error
