"""Which example every reader has in hand, so that a read that never returns has a name.

Readers are threads of this process or worker processes; a small mapped file is what both can write
to, at the cost of two stores an example.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
import weakref
from typing import Any

import numpy as np

from lska_jax.data.sources import Examples

# As many as there may be workers; more threads than that would share a slot.
_SLOTS = 64
_NOTHING = -1

_threads = itertools.count()
_reader = threading.local()


def number_this_reader(number: int) -> None:
    """Give this thread the slot of a number; threads that are not numbered number themselves."""
    _reader.slot = number % _SLOTS


class ReadingNow:
    """A table of the examples in hand; may be sent to worker processes."""

    def __init__(self) -> None:
        handle, self._path = tempfile.mkstemp(prefix="lska_jax_reading_")
        os.truncate(handle, 2 * _SLOTS * 8)
        os.close(handle)
        self._map()
        self._indices[:] = _NOTHING
        weakref.finalize(self, os.unlink, self._path)

    def begin(self, index: int) -> None:
        """Note that this thread starts to read the example at an index of its source."""
        slot = _slot()
        self._since[slot] = time.monotonic()
        self._indices[slot] = index

    def end(self) -> None:
        """Note that this thread has read it."""
        self._indices[_slot()] = _NOTHING

    def describe(self, source: Examples) -> str:
        """Return which example is in hand longest, by path, and since when."""
        slots = np.flatnonzero(self._indices != _NOTHING)
        if not len(slots):
            return "No reader has an example in hand."
        slot = min(slots, key=lambda slot: self._since[slot])
        seconds = time.monotonic() - self._since[slot]
        others = f" ({len(slots) - 1} other readers have one too)" if len(slots) > 1 else ""
        return (
            f"Reading {source.path(int(self._indices[slot]))} of {source.name} since "
            f"{seconds:.0f} s{others}."
        )

    def _map(self) -> None:
        # The system's monotonic clock is the same in every process.
        self._indices = np.memmap(self._path, np.int64, mode="r+", shape=_SLOTS)
        self._since = np.memmap(self._path, np.float64, mode="r+", offset=_SLOTS * 8, shape=_SLOTS)

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path = state["_path"]
        self._map()


def _slot() -> int:
    try:
        return _reader.slot
    except AttributeError:
        number_this_reader(next(_threads))
        return _reader.slot
