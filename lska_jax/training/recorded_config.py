"""The config of a run, read back from its checkpoint or its config.json; nothing heavy here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lska_jax.models.table import plain
from lska_jax.training.checkpoint.errors import CheckpointDamaged
from lska_jax.training.checkpoint.load_tree import CHECKPOINTS_FOLDER, find_step_folder
from lska_jax.training.checkpoint.manifest import ManifestError, read_manifest
from lska_jax.training.config import base_config, model_section
from lska_jax.training.run_record import check_record


def config_of_run(place: str | Path) -> ConfigDict:
    """Return the config that the best step of a run was trained with, locked.

    Args:
      place: a run's folder, its checkpoints folder or one step's folder.

    Raises:
      FileNotFoundError: there is no checkpoint.
      CheckpointDamaged: its manifest cannot be read, or is not of its types.
      ValueError: the checkpoint does not say its config, or it is none of this version.
    """
    folder = find_step_folder(place, step="best")
    try:
        record = read_manifest(folder)["metadata"]
    except ManifestError as error:
        raise CheckpointDamaged(f"{error}.") from error
    check_record(record, where=folder)
    if "config" not in record:
        raise ValueError(f"{folder} does not say its config; give one with --config.")
    try:
        return restore_config(record["config"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The config in {folder} is none of this version ({error}); give one with --config."
        ) from error


def read_config_file(path: Path) -> ConfigDict:
    """Return the config in a run's config.json, or in a copy of it, locked.

    Raises:
      ValueError: it is no JSON, or no config of this version.
    """
    try:
        return restore_config(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no config of this version ({error}).") from error


def folder_of_run(place: str | Path) -> Path:
    """Return the folder of the run that a checkpoint is of; FileNotFoundError where there is none.

    Args:
      place: as in ``config_of_run``.
    """
    checkpoints = find_step_folder(place, step="best").parent
    return checkpoints.parent if checkpoints.name == CHECKPOINTS_FOLDER else checkpoints


def restore_config(settings: Mapping[str, Any]) -> ConfigDict:
    """Return a config of JSON values with the types that a config has, locked.

    Keys that came after it was written have their defaults.

    Raises:
      KeyError, TypeError, AttributeError, ValueError: it is no config of this version.
    """
    config = base_config()
    for name, section in settings.items():
        if name == "model":
            fields = plain(section)
            config.model = model_section(fields.pop("name"), **fields)
        elif name in config and isinstance(section, dict) and name != "evaluators":
            config[name].update(plain(section))
        else:
            config[name] = ConfigDict(section) if isinstance(section, dict) else section
    return config.lock()
