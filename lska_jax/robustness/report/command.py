"""What the commands that report results have in common: results files in, a folder out."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lska_jax.robustness.cells import Summary

USAGE_ERROR = 2


def build_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments RESULTS_FILE... and --out.

    Args:
      module: the command, as in ``python -m MODULE``.
      description: what ``--help`` says.
    """
    parser = argparse.ArgumentParser(
        f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="+", type=Path, metavar="RESULTS_FILE", help="written by a sweep"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder, made if it is not there")
    return parser


def load_all(paths: Sequence[Path]) -> list[Summary]:
    """Return the summaries of all results files, in their order."""
    return [summary for path in paths for summary in load_file(path)]


def load_file(path: Path) -> list[Summary]:
    """Return the summaries of one results file."""
    from lska_jax.robustness.sweep.summary import load_summaries

    return load_summaries(path)


def run(write: Callable[[], Path]) -> int:
    """Write, say where, and return the exit code; a mistake ends in one readable message."""
    try:
        path = write()
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return USAGE_ERROR
    print(f"Wrote {path}.")
    return 0
