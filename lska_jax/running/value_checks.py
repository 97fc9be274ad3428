"""Checks of single values of a config; each adds a sentence to a list of problems."""

import math
from collections.abc import Callable, Sequence
from typing import Any


def collect(problems: list[str], check: Callable[[], object]) -> None:
    """Add the message of a check that raises ValueError or TypeError."""
    try:
        check()
    except (ValueError, TypeError) as error:
        problems.append(str(error))


def check_range(
    problems: list[str],
    name: str,
    value: int | float,
    *,
    above: int | float = -math.inf,
    low: int | float = -math.inf,
    high: int | float = math.inf,
    below: int | float = math.inf,
) -> None:
    """Check that a number is finite, above one bound or at least it, below one or at most it."""
    if math.isfinite(value) and low <= value <= high and above < value < below:
        return
    bounds = [f"above {above:.12g}"] if above > -math.inf else []
    bounds += [f"at least {low:.12g}"] if low > -math.inf else []
    bounds += [f"at most {high:.12g}"] if high < math.inf else []
    bounds += [f"below {below:.12g}"] if below < math.inf else []
    problems.append(f"{name}={value} must be {' and '.join(bounds) or 'finite'}.")


def check_entries(
    problems: list[str],
    name: str,
    entries: Sequence[Any],
    *,
    is_whole: bool = False,
    **bounds: int | float,
) -> None:
    """Check each entry of a tuple, whose type a command line does not decide."""
    for position, entry in enumerate(entries):
        label = f"{name}[{position}]"
        if isinstance(entry, bool) or not isinstance(entry, int if is_whole else int | float):
            kind = "whole number" if is_whole else "number"
            problems.append(f"{label}={entry!r} must be a {kind}.")
        else:
            check_range(problems, label, entry, **bounds)


def check_choice(problems: list[str], name: str, value: str, allowed: Sequence[str]) -> None:
    """Check that a word is one of those allowed."""
    if value not in allowed:
        problems.append(f"{name}={value!r} is unknown; allowed: {', '.join(allowed)}.")
