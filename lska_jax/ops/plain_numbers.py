"""Numbers as callers have them, NumPy's and JAX's among them, written as Python's own.

Pure Python, so that a config can be checked before anything heavy is imported.
"""

import operator
from typing import Any


def plain_int(name: str, value: Any) -> int:
    """Return a whole number as an int: of Python, of NumPy, or an array of one, without axes.

    Raises:
      TypeError: anything else, bools and floats without a fraction among them.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {_described(value)}.") from None


def plain_float(name: str, value: Any) -> float:
    """Return a number as a float: of Python, of NumPy, or an array of one, without axes.

    Raises:
      TypeError: anything else, bools, strings and arrays with axes among them.
    """
    if isinstance(value, (bool, str, bytes)) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} must be a number, got {_described(value)}.")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {_described(value)}.") from None


def _described(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
