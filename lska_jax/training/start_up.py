"""Where the time between the command and the first step goes."""

import os
import time
from pathlib import Path


class StartUp:
    """A clock that runs from the start of a command, with a name for each part.

    Args:
      since: the start, on the clock of ``time.monotonic``; None is that of the process.
    """

    def __init__(self, since: float | None = None) -> None:
        self._first = self._last = _process_start() if since is None else since
        self._parts: list[tuple[str, float]] = []

    def mark(self, name: str) -> None:
        """Say that what went on until now was ``name``."""
        now = time.monotonic()
        self._parts.append((name, now - self._last))
        self._last = now

    def summary(self) -> str:
        """Return the seconds until the last mark, and of each part."""
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self._parts)
        return f"{self._last - self._first:.1f} s ({parts})"


def _process_start() -> float:
    """Return when the process started, on the clock of ``time.monotonic``."""
    try:
        # Field 22, in clock ticks since boot; the name of the program may hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    except (OSError, ValueError, AttributeError):
        age = time.process_time()
    return time.monotonic() - age
