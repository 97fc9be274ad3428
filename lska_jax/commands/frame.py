"""What all commands share: help with examples, and mistakes that end in one readable message.

Nothing heavy is imported here or at the top of a command, so that help and mistakes cost a moment.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lska_jax.data.limits import MAX_PIXELS

USAGE_ERROR = 2
INTERRUPTED = 130
MODEL_PLACES = (
    "a model folder, a run, a step of it, a checkpoint file, a Hub id, or cifar10, the model that "
    "comes with the package"
)
# As a shell reports a program that SIGPIPE ended.
_CLOSED_PIPE = 141
_SECONDS_BEFORE_PROGRESS = 1.0


class Parser(argparse.ArgumentParser):
    """A parser that says in full sentences what is wrong, and which option comes closest."""

    # Of a command with a config: (arguments, words, command) -> the config, and words left over.
    read_config: Callable[[argparse.Namespace, list[str], str], tuple[Any, list[str]]] | None = None

    def error(self, message: str) -> NoReturn:
        """Print a mistake and end with ``USAGE_ERROR``."""
        fail(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")
        self.exit(USAGE_ERROR)

    def refuse(self, words: Sequence[str]) -> NoReturn:
        """Say that words are no options of the command, and end with ``USAGE_ERROR``."""
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        if not options:
            self.error(f"Unexpected arguments {list(words)}; every option starts with --")
        known = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(options[0], known, n=2)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        fail(f"There is no option {options[0]}.{hint} See {self.prog} --help.")
        self.exit(USAGE_ERROR)


class Switch(argparse.Action):
    """An option that is on or off: --NAME, --noNAME, or --NAME=false."""

    def __init__(self, option_strings: Sequence[str], dest: str, **settings: Any) -> None:
        (name,) = option_strings
        names = [name, f"--no{name.removeprefix('--')}"]
        super().__init__(names, dest, nargs="?", default=False, metavar="BOOL", **settings)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Set the option."""
        is_on = {"true": True, "1": True, "false": False, "0": False}.get(str(values or 1).lower())
        if is_on is None:
            parser.error(f"{option_string} is {values!r}; allowed: true or false")
        setattr(namespace, self.dest, is_on == (option_string == self.option_strings[0]))


def make_parser(command: str, description: str, *, examples: Sequence[str]) -> Parser:
    """Return the parser of a command.

    Args:
      command: as it is called, "lska-jax predict".
      description: what the command does.
      examples: whole command lines; a comment may follow.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    return Parser(
        command,
        description=description,
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_max_image_pixels(parser: Parser) -> None:
    """Add the option of commands that read images without a config, which has the same limit."""
    parser.add_argument(
        "--max_image_pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"an image file of more is broken, whatever its format (default: {MAX_PIXELS:,})",
    )


def run(
    parser: Parser,
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
    arguments, extra = parser.parse_known_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text; what is none is printed escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if parser.read_config:
            # Before the config is loaded, which takes longer.
            if unknown := [word for word in extra if re.match(r"--?(?!(no)?config\.)[a-z]", word)]:
                parser.refuse(unknown)
            arguments.config, extra = parser.read_config(arguments, extra, parser.prog)
        if extra:
            parser.refuse(extra)
        return work(arguments) or 0
    except BrokenPipeError:
        # Python would complain about the same pipe again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _CLOSED_PIPE
    except (ValueError, OSError, ImportError) as error:
        return fail(error)
    except (RuntimeError, AssertionError) as error:
        from lska_jax.running.missing_platform import describe_missing_platform
        from lska_jax.training.checkpoint.errors import CheckpointDamaged

        problem = describe_missing_platform(error)
        if problem is None and not isinstance(error, CheckpointDamaged):
            # No mistake of whoever called the command.
            raise
        return fail(problem or error)
    except KeyboardInterrupt:
        return INTERRUPTED


def fail(error: object) -> int:
    """Print what went wrong and return the status of a usage error."""
    print(f"Error: {error}", file=sys.stderr)
    return USAGE_ERROR


def remark(text: str) -> None:
    """Print what is worth knowing beside a command's own output."""
    print(text, file=sys.stderr)


def progress_bar(description: str, total: int, *, unit: str) -> Any:
    """Return a bar on stderr that appears after a second and leaves nothing behind."""
    from tqdm import tqdm

    return tqdm(
        total=total, desc=description, unit=f" {unit}", delay=_SECONDS_BEFORE_PROGRESS, leave=False
    )


def settle_jax() -> None:
    """Keep what is compiled from here on and run it in this thread, in a process that is ours."""
    from lska_jax.running.own_process import is_own_process

    if is_own_process():
        from lska_jax.running.compilation_cache import use_compilation_cache
        from lska_jax.running.inline_dispatch import use_inline_dispatch

        use_inline_dispatch()
        use_compilation_cache()


def say_written_model(folder: str) -> None:
    """Print where a model folder was written and how to use it."""
    print(f"Wrote {folder}. Use it: create_model(pretrained={folder!r}), or")
    print(f"  lska-jax predict {folder} image.jpg")


def positive(convert: type[int] | type[float]) -> Callable[[str], int | float]:
    """Return a type of options: a positive number."""

    def parse(text: str) -> int | float:
        value = convert(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    # argparse names it in its message.
    parse.__name__ = f"positive {convert.__name__}"
    return parse


def whole_number(text: str) -> int:
    """Read a whole number of at least 0, as a type of options."""
    if not text.isdecimal():
        raise ValueError
    return int(text)
