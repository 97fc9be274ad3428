"""Requests to stop in a process that is not ours: a notebook's kernel, a program of somebody else.

There nothing may end the process, and handlers of signals are put back.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from lska_jax.running.stop_signals import SIGNALS, StopRequested, StopSignals

# Ctrl-C held down sends many; they are one request.
_SECONDS_OF_ONE_REQUEST = 1.0


class BorrowedSignals(StopSignals):
    """SIGINT and SIGTERM as requests to stop, for as long as a ``with`` block lasts.

    A request before there is anything to save, and one after the first, raises KeyboardInterrupt.
    After SIGTERM the process gets the signal again when the block is over and its work saved. In
    a thread that is not the main one, which no signal reaches, nothing is asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._previous: dict[int, Callable[..., object] | int | None] = {}

    def __enter__(self) -> BorrowedSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None is a handler that was not set from Python, and cannot be.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()
        if self._name == signal.SIGTERM.name:
            os.kill(os.getpid(), signal.SIGTERM)

    def keep_requests(self) -> None:
        """From here on a first request no longer raises: the caller asks and finishes."""
        self._is_kept = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if not self._name:
            self._name = signal.Signals(number).name
            self._requested_at = now
            if self._is_kept:
                # Past sys.stderr, whose lock the code that was interrupted may hold.
                os.write(2, f"{self._name}: stopping after this step.\n".encode())
            else:
                raise KeyboardInterrupt
        elif now - self._requested_at > _SECONDS_OF_ONE_REQUEST:
            raise KeyboardInterrupt
        if self._is_waiting and self._is_kept:
            raise StopRequested
