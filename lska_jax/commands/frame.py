"""What all commands share: help with examples, and mistakes that end in one readable message.

Nothing heavy is imported here or at the top of a command, so that help and mistakes cost a moment.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

USAGE_ERROR = 2
INTERRUPTED = 130
# As a shell reports a program that SIGPIPE ended.
_CLOSED_PIPE = 141


def make_parser(
    command: str, description: str, *, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Return the parser of a command.

    Args:
      command: as it is called, "lska-jax predict".
      description: what the command does.
      examples: whole command lines; a comment may follow.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    return argparse.ArgumentParser(
        command,
        description=description,
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> int:
    """Parse a command line and do its work; a mistake ends in one readable message.

    Args:
      parser: of the command.
      work: takes the parsed arguments; returns the exit status, None for 0.
      argv: without the program's name; None takes this program's.

    Returns:
      The exit status: ``USAGE_ERROR`` after a mistake.
    """
    arguments = parser.parse_args(argv)
    try:
        return work(arguments) or 0
    except BrokenPipeError:
        # Python would complain about the same pipe again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _CLOSED_PIPE
    except (ValueError, OSError, ImportError) as error:
        return fail(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def fail(error: object) -> int:
    """Print what went wrong and return the status of a usage error."""
    print(f"Error: {error}", file=sys.stderr)
    return USAGE_ERROR


def say_written_model(folder: str) -> None:
    """Print where a model folder was written and how to use it."""
    print(f"Wrote {folder}. Use it: create_model(pretrained={folder!r}), or")
    print(f"  lska-jax predict {folder} image.jpg")
