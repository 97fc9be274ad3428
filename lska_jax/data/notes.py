"""Say what was decided or left out while reading data, once."""

import functools
import sys


@functools.cache
def say_once(text: str) -> None:
    """Print a note on stderr, unless this process has printed it before."""
    print(f"Note: {text}", file=sys.stderr)
