"""Configs by name or path, and the options that change them: ``--config digits:35 --config.K=V``.

Nothing heavy is imported, so that a mistake costs a moment.
"""

from __future__ import annotations

import difflib
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lska_jax.commands.frame import Parser

# What a run keeps its config in.
RUN_CONFIG_NAME = "config.json"
_FOLDER = "configs"
_SUFFIXES = (".py", ".json")
# In a wheel the configs lie in the package; in a clone they lie beside it.
_PLACES = (Path(__file__).parents[1] / _FOLDER, Path(__file__).parents[2] / _FOLDER)


class ConfigPlace(NamedTuple):
    """Where a config comes from.

    Attributes:
      path: of the file.
      argument: what is passed to its ``get_config``, or "".
    """

    path: Path
    argument: str

    @property
    def workdir(self) -> Path:
        """Folder of runs of this config: that of a run's config.json, else one of its name."""
        if self.path.name == RUN_CONFIG_NAME:
            return self.path.parent
        argument = re.sub(r"[^\w.]+", "-", self.argument)
        return Path("runs", f"{self.path.stem}-{argument}" if argument else self.path.stem)


def shipped_configs() -> dict[str, Path]:
    """Return the configs that come with the package, by name."""
    folder = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def find_config(location: str) -> ConfigPlace:
    """Find a config file.

    Args:
      location: a name of ``shipped_configs`` or the path of a file, with an argument behind a
        colon or without: "digits", "digits:35", "configs/digits.py", "my/own.py:35,trivial",
        "runs/photos/config.json".

    Raises:
      ValueError: there is no such config; those that come close are named.
    """
    name, _, argument = location.partition(":")
    path, shipped = Path(name), shipped_configs()
    is_path = path.suffix in _SUFFIXES or path.name != name
    if not is_path and name in shipped:
        return ConfigPlace(shipped[name], argument)
    if path.is_file():
        return ConfigPlace(path, argument)
    # An installed package has no folder configs/ in sight, and its users read the same docs.
    if path.parent == Path(_FOLDER) and path.stem in shipped:
        return ConfigPlace(shipped[path.stem], argument)
    kind = "config file" if is_path else "config"
    close = difflib.get_close_matches(path.stem, shipped, n=2, cutoff=0.7)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    if not is_path and path.with_suffix(".py").is_file():
        hint = f" To read the file here, write {name}.py."
    raise ValueError(
        f"There is no {kind} {name}.{hint} Allowed: the path of a .py file or of a run's "
        f"{RUN_CONFIG_NAME}, or one of "
        f"{', '.join(shipped)}."
    )


def load_config(location: str | Path) -> ConfigDict:
    """Load a config by name or path, checked for misspelt keys and locked against new ones.

    Args:
      location: as in ``find_config``.

    Raises:
      ValueError: there is no such config, it does not load, or it has unknown keys.
    """
    from lska_jax.training.config_check import check_keys

    config = _load(find_config(str(location)))
    check_keys(config)
    return config


def add_config_option(parser: Parser) -> None:
    """Let a command take ``--config`` and ``--config.KEY=VALUE``."""
    parser.read_config = lambda arguments, words, command: read_config(
        arguments.config_place, words, command
    )
    parser.add_argument(
        "--config",
        dest="config_place",
        metavar="NAME[:ARGUMENT]",
        help=f"{', '.join(shipped_configs())}, or the path of a config file or of a run's "
        f"{RUN_CONFIG_NAME}; "
        "--config.KEY=VALUE replaces a value of it, as in "
        "--config.optimizer.learning_rate=1e-3",
    )


def read_config(
    location: str | None, words: Sequence[str], command: str
) -> tuple[ConfigDict, list[str]]:
    """Load a config and change it as a command line says.

    Args:
      location: as in ``find_config``; None if it was not given.
      words: of the command line: --config.KEY=VALUE, and others.
      command: how the program is called, for messages.

    Returns:
      The config, for ``check_config``, and the words that do not belong to it.

    Raises:
      ValueError: there is no such config or key, or a value has the wrong type.
    """
    if not location:
        raise ValueError(f"--config is missing, as in: {command} --config configs/digits.py")
    config = _load(find_config(location))
    return config, change_config(config, words)


def change_config(config: ConfigDict, words: Sequence[str]) -> list[str]:
    """Change a config as a command line says, and return the words that do not belong to it.

    Args:
      config: to change.
      words: of the command line: --config.KEY=VALUE, and others.

    Raises:
      ValueError: there is no such key, or a value has the wrong type.
    """
    from lska_jax.training import config as configs

    for word in words:
        override = re.match(r"--?(?:no)?config\.([^=]*)", word)
        if override and not configs.has_key(config, override[1]):
            raise ValueError(configs.unknown_key_message(config, override[1]))
    words = [word for word in words if not _set_per_stage(config, word)]
    return _override(config, words) if words else []


def _set_per_stage(config: ConfigDict, word: str) -> bool:
    """Set a field of the model stage by stage, as in --config.model.k=7,11,23,35, if it is one.

    Such a field is a number or a word otherwise, whose type flags would insist on.
    """
    from lska_jax.models.table import families, model_entry

    match = re.fullmatch(r"--?config\.model\.(?P<field>\w+)=(?P<values>.*)", word, re.DOTALL)
    if match is None:
        return False
    try:
        per_stage = families()[model_entry(config.model.name).family].per_stage
    except (ValueError, AttributeError):
        # The check of the config says that there is no such model.
        return False
    field = match["field"]
    is_tuple = "," in match["values"] or isinstance(config.model.get(field), tuple)
    if field not in per_stage or not is_tuple:
        return False
    values = [part.strip(" '\"") for part in match["values"].strip("() ").split(",")]
    read = tuple(
        int(value) if re.fullmatch(r"-?\d+", value) else None if value == "None" else value
        for value in values
        if value
    )
    with config.model.ignore_type():
        config.model[field] = read if len(read) > 1 or field == "attention" else read[0]
    return True


def _load(place: ConfigPlace) -> ConfigDict:
    """Run a config file, and lock what it returns."""
    from ml_collections import ConfigDict

    path, argument = place
    try:
        if path.suffix == ".json":
            if argument:
                raise ValueError(f"it takes no argument, got {argument!r}.")
            from lska_jax.training.recorded_config import read_config_file

            return read_config_file(path)
        get_config = runpy.run_path(str(path)).get("get_config")
        if get_config is None:
            raise ValueError("it defines no function get_config().")
        config = get_config(argument) if argument else get_config()
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} does not load: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{path} does not load: get_config() returned {type(config).__name__}.")
    return config.lock()


def _override(config: ConfigDict, words: Sequence[str]) -> list[str]:
    from absl import flags
    from ml_collections import config_flags

    from lska_jax.training import config as configs

    # Flags of their own: absl's global ones belong to the program, and exist once.
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(words))
    try:
        return values(["lska-jax", *words], known_only=True)[1:]
    except (flags.Error, ValueError, TypeError) as error:
        refused = re.search(r"--config\.([\w.]+)=(.*?): ", f"{error} ", re.DOTALL)
        if not refused:
            raise ValueError(f"{str(error).rstrip('.')}.") from error
        key, value = refused.groups()
        raise ValueError(
            f"--config.{key}={value} has the wrong type. Allowed: "
            f"{configs.describe_type(config, key)}."
        ) from error
