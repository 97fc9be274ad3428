"""Commands of the pages, held against the programs' own parsers and configs, not run."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lska_jax.__main__ import COMMANDS, main
from lska_jax.commands import config_option, frame, own_data

ROOT = Path(__file__).parents[1]
_find_real_config = config_option.find_config
_PROGRAMS = {"train.py": "train", "eval_robustness.py": "robustness"}
_NAMES = {name for group in COMMANDS.values() for name in group}


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the simple commands of a shell script as words, loop variables by their first value."""
    for name, first in re.findall(r"for (\w+) in (\S+)", text):
        text = text.replace(f"${name}", first)
    text = text.replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="();|&")
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();|&"):
                yield from ([_without_settings(command)] if command else [])
                command = []
            else:
                command.append(word)


def _without_settings(words: list[str]) -> list[str]:
    """Leave out keywords of the shell and NAME=VALUE in front of a command."""
    while words and (words[0] in ("do", "done", "while", "!") or re.match(r"\w+=", words[0])):
        words = words[1:]
    return words


def problem_with(words: list[str]) -> str | None:
    """Say what is wrong with a command of this project; None for others and for what is right."""
    words = words[next((n for n, w in enumerate(words) if w in ("lska-jax", "python")), 0) :]
    match words:
        case ["lska-jax", command, *options]:
            pass
        case ["python", "-m", "lska_jax", command, *options]:
            pass
        case ["python", script, *options] if script in _PROGRAMS:
            command = _PROGRAMS[script]
        case ["python", "-m", module, *_] if module.split(".")[0] in ("benchmarks", "tests"):
            return None if importlib.util.find_spec(module) else f"There is no {module}."
        case _:
            return None
    if command not in _NAMES:
        return None if command == "--help" else f"There is no command {command}."
    return _parse(command, options)


def _parse(command: str, options: list[str]) -> str | None:
    """Read a command line as the command does, up to where it would begin to work."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame, "fail", lambda error: said.append(str(error)))
        patch.setattr(own_data, "make_config", lambda arguments: _some_config())
        patch.setattr(config_option, "find_config", _find_config)
        patch.setattr(frame, "run", _read_only)
        try:
            main([command, *options])
        except (SystemExit, ValueError) as end:
            return said[0] if said else str(end)
    return None


def _read_only(parser: frame.Parser, work: object, argv: list[str]) -> int:
    arguments, extra = parser.parse_known_args(argv)
    if parser.read_config:
        from lska_jax.training.config_check import check_config

        if getattr(arguments, "eval_only", False) and not arguments.config_place:
            # That of a run.
            arguments.config = _some_config()
            extra = config_option.change_config(arguments.config, extra)
        else:
            arguments.config, extra = parser.read_config(arguments, extra, parser.prog)
        check_config(arguments.config)
    if extra:
        parser.refuse(extra)
    return 0


def _some_config() -> object:
    return config_option.load_config("digits")


def _find_config(location: str) -> config_option.ConfigPlace:
    """Take any config for that of a run, which is not there before the run."""
    return _find_real_config("digits" if Path(location).name == "config.json" else location)
