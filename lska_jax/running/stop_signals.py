"""SIGTERM and SIGINT as a request to stop: what a preempted machine and Ctrl-C send.

The first signal asks: a run finishes the step in hand, saves and leaves; a run that has nothing to
save yet, because it still starts or compiles, leaves at once. Both leave with `RESUME_EXIT_CODE`:
the same command goes on. A second signal leaves at once, whatever the run is doing, also where it
hangs in a device or in the kernel.

Python runs its own signal handlers between two bytecodes of the main thread, which a compile keeps
busy for minutes. Hence a thread, woken through a pipe that Python writes to in the real handler.

Only the standard library is imported here: signals have to be answered before anything else loads.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# sysexits.h calls it EX_TEMPFAIL: not an error, try again later.
RESUME_EXIT_CODE = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Supervisors signal a process and its group; both arrive within milliseconds and are one request.
_SECONDS_OF_ONE_REQUEST = 1.0


class StopRequested(BaseException):
    """A stop was asked for; no ``Exception``, so that nobody below takes it for an error."""


def hold_signals() -> None:
    """Keep both signals waiting until `StopSignals.listen`, also over a restart through exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class StopSignals:
    """The request to stop of this process; one object for its whole life."""

    def __init__(self) -> None:
        self._name = ""
        self._requested_at = float("-inf")
        self._is_kept = False
        self._is_waiting = False
        self._lock = threading.Lock()

    @property
    def is_requested(self) -> bool:
        """Whether a signal came that has not ended the process at once."""
        return bool(self._name)

    @property
    def name(self) -> str:
        """The name of the first signal, as SIGTERM; "" before there is one."""
        return self._name

    def listen(self) -> None:
        """Answer both signals from here on. For the main thread, before jax is imported."""
        # On several processes JAX would answer SIGTERM itself, and SIGINT not at all.
        os.environ.setdefault("JAX_ENABLE_PREEMPTION_SERVICE", "false")
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._answer_all, args=(reading,), daemon=True).start()
        self._install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def keep_requests(self) -> None:
        """From here on a first signal no longer ends the process: the caller asks and finishes."""
        with self._lock:
            self._is_kept = True
        if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            # The TPU's runtime puts handlers of its own there as it starts.
            self._install()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end what the main thread waits for inside.

        Raises:
          StopRequested: a signal came, inside or before.
        """
        try:
            # In this order: a signal in between is seen twice rather than not at all.
            self._is_waiting = True
            if self._is_kept and self.is_requested:
                raise StopRequested
            yield
        finally:
            self._is_waiting = False

    def _install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._answer_in_main_thread)

    def _answer_in_main_thread(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._name = self._name or signal.Signals(number).name
        if self._is_waiting and self._is_kept:
            raise StopRequested

    def _answer_all(self, reading: int) -> None:
        while True:
            number = os.read(reading, 1)[0]
            if number in SIGNALS:
                self._answer(signal.Signals(number))

    def _answer(self, received: signal.Signals) -> None:
        now = time.monotonic()
        with self._lock:
            if self._requested_at == float("-inf"):
                self._requested_at = now
                self._name = received.name
                if not self._is_kept:
                    _say(
                        f"{received.name} while starting: nothing to save. The same command "
                        f"{_goes_on()}"
                    )
                    os._exit(RESUME_EXIT_CODE)
                _say(f"{received.name}: stopping after this step. A second signal ends at once.")
            elif now - self._requested_at > _SECONDS_OF_ONE_REQUEST:
                _say(
                    f"{received.name} again: ended at once; steps after the last checkpoint are "
                    "lost."
                )
                os._exit(128 + received)


def leave_to_resume(message: str, *, is_alone: bool) -> None:
    """Say what is saved and end the process with `RESUME_EXIT_CODE`.

    Args:
      message: what was done; how to go on is added.
      is_alone: whether this is the only process of the run. It then ends without waiting for
        threads, one of which may be stuck in the read that was interrupted.
    """
    _say(f"{message} The same command {_goes_on()}")
    if is_alone:
        sys.stdout.flush()
        os._exit(RESUME_EXIT_CODE)
    sys.exit(RESUME_EXIT_CODE)


def _goes_on() -> str:
    return f"goes on from there (exit code {RESUME_EXIT_CODE})."


def _say(text: str) -> None:
    # Past sys.stderr, whose lock the main thread may hold.
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())
