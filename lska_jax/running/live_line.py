"""One line of a terminal or notebook that is rewritten in place, below lines that stay.

On anything else (a pipe, a file, a dumb terminal) there is no such line, and no control character
is ever written. What a cell of a notebook prints knows the carriage return, but no escape
sequences: there spaces take the line away.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from io import TextIOBase
from typing import TextIO

_SECONDS_BETWEEN_REFRESHES = 0.2
# What is written over stays in the messages of a notebook.
_SECONDS_BETWEEN_REFRESHES_IN_NOTEBOOKS = 1.0
_NOTEBOOK_COLUMNS = 120
_ERASE_TO_END = "\x1b[K"
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


class LiveLine:
    """A line that changes in place, and plain lines above it. Safe to use from threads.

    Args:
      stream: where to write; standard output where None.
      clock: seconds that only grow; for tests.

    Attributes:
      is_live: whether there is such a line, until nobody is there to see it.
    """

    def __init__(
        self,
        stream: TextIO | TextIOBase | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        self._lock = threading.Lock()
        self._shown = ""
        self._next_refresh = float("-inf")
        self._is_notebook = type(self._stream).__module__.partition(".")[0] == "ipykernel"
        is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self.is_live = self._is_notebook or is_terminal

    def update(self, text: str) -> None:
        """Show `text` as the live line, unless the last change was a moment ago."""
        if not self.is_live or self._clock() < self._next_refresh:
            return
        with self._lock:
            between, columns = _SECONDS_BETWEEN_REFRESHES, shutil.get_terminal_size().columns
            if self._is_notebook:
                between, columns = _SECONDS_BETWEEN_REFRESHES_IN_NOTEBOOKS, _NOTEBOOK_COLUMNS
            self._next_refresh = self._clock() + between
            # One column stays free: a full last column makes some terminals wrap.
            shown = plain_text(text)[: max(columns - 1, 1)]
            self._write(f"{self._erased()}{shown}")
            self._shown = shown

    def print(self, text: str) -> None:
        """Write a line that stays, above the live one."""
        with self._lock:
            if self._shown:
                self._write(f"{self._erased()}{text}\n{self._shown}")
            else:
                self._write(f"{text}\n")

    def clear(self) -> None:
        """Take the live line away."""
        with self._lock:
            if self._shown:
                self._write(self._erased())
            self._shown = ""
            self._next_refresh = float("-inf")

    def _erased(self) -> str:
        """Return what takes the live line away."""
        if self._is_notebook:
            return f"\r{' ' * len(self._shown)}\r"
        return f"\r{_ERASE_TO_END}"

    def _write(self, text: str) -> None:
        # Names of files need not be text, and some terminals know few letters.
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, errors="backslashreplace").decode(encoding)
        # A terminal that went away (a closed window, a pipe to `head`) must not end a run.
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self.is_live = False


def plain_text(text: str) -> str:
    """Return `text` without colour codes and other control characters but tab and newline."""
    return _CONTROL_CHARACTER.sub("", _ESCAPE_SEQUENCE.sub("", text))
