"""Checks of single values of a config; each adds a sentence to a list of problems."""

from collections.abc import Callable, Sequence
from typing import Any

from lska_jax.models import checks


def collect(problems: list[str], check: Callable[[], object]) -> None:
    """Add the message of a check that raises ValueError or TypeError."""
    try:
        check()
    except (ValueError, TypeError) as error:
        problems.append(str(error))


def check_range(problems: list[str], name: str, value: int | float, **bounds: int | float) -> None:
    """Check a number against bounds; see ``models.checks.check_range``."""
    problems += checks.check_range(name, value, **bounds)


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
    problems += checks.check_choice({name: value}, name, allowed)
