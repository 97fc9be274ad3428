"""Say what was decided or left out while reading data, once."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_listeners: list[list[str]] = []


def say_once(text: str) -> None:
    """Print a note on stderr, unless this process has printed it before."""
    for heard in _listeners:
        if text not in heard:
            heard.append(text)
    _say(text)


@contextmanager
def heard_notes() -> Iterator[list[str]]:
    """Collect the notes of a block, those too that were printed before."""
    heard: list[str] = []
    _listeners.append(heard)
    try:
        yield heard
    finally:
        _listeners.pop()


def forget_notes() -> None:
    """Let every note be printed again."""
    _say.cache_clear()


@functools.cache
def _say(text: str) -> None:
    print(f"Note: {text}", file=sys.stderr)
