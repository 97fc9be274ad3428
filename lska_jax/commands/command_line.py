"""Command lines with a ``--config``: what is wrong with them, said in one message.

Nothing heavy is imported, so that a mistake costs a moment.
"""

import re
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict

from lska_jax.training import config as configs

USAGE_ERROR = 2


def parse_flags(
    argv: list[str],
    *,
    flag_values: flags.FlagValues = flags.FLAGS,
    command: str = "python train.py",
) -> list[str]:
    """Parse flags, and say what is allowed where one does not exist or has the wrong type.

    Args:
      argv: with the program's name first.
      flag_values: that "config" and the program's other flags are defined in.
      command: how the program is called, for the message.

    Returns:
      What is no flag, the program's name first.
    """
    is_help = any(word.lstrip("-").startswith("help") for word in argv[1:])
    config = None if is_help else _load_checked(argv, command)
    try:
        return flag_values(argv)
    except (flags.Error, ValueError, TypeError) as error:
        message = str(error).splitlines()[0]
        key = re.search(r"--config\.([\w.]+)", message)
        if config is not None and key:
            message += f". Allowed: {configs.describe_type(config, key[1])}."
        fail(message)


def config_name(argv: list[str]) -> str:
    """Return the name of the config file of a command line, without folder and ending."""
    return Path(_option(argv, "config").split(":")[0]).stem


def fail(message: str) -> NoReturn:
    """Print a message and end with the status of a usage error."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def _option(argv: list[str], name: str) -> str:
    """Return the value of a flag before flags are parsed, or ""."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        flag, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag == name:
            return value if equals else following
    return ""


def _load_checked(argv: list[str], command: str) -> ConfigDict:
    """Load the config file and check the names of the keys that are overridden."""
    location = _option(argv, "config")
    path, _, argument = location.partition(":")
    if not location:
        fail(f"--config is missing, as in: {command} --config configs/digits.py")
    if not Path(path).is_file():
        found = ", ".join(sorted(map(str, Path("configs").glob("*.py")))) or "none in configs/"
        fail(f"There is no config file {path}. Configs here: {found}.")
    try:
        config = runpy.run_path(path)["get_config"](argument)
    except Exception as error:
        fail(f"{path} does not load: {type(error).__name__}: {error}")
    for word in argv[1:]:
        key = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and key.startswith("config."):
            key = key.removeprefix("config.")
            if not configs.has_key(config, key):
                fail(configs.unknown_key_message(config, key))
    return config
