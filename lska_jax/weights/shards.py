"""Checkpoints in several files: an index names the file of each array.

``model.safetensors.index.json`` and ``pytorch_model.bin.index.json``, as transformers writes them:
{"weight_map": {array: file}}.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lska_jax.weights.folder_files import inside, read_object

INDEX_SUFFIX = ".index.json"
_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d+)-of-(?P<count>\d+)(?P<suffix>\.safetensors|\.bin)")


def is_index(path: Path) -> bool:
    """Tell whether a file is the index of a checkpoint in several files, by its name."""
    return path.name.lower().endswith(INDEX_SUFFIX)


def refuse_single_shard(path: Path) -> None:
    """Refuse one file of several.

    Raises:
      ValueError: the name says that the file is a part; the message names the index.
    """
    part = _PART.fullmatch(path.name)
    if part and int(part["count"]) > 1:
        index = path.with_name(f"{part['stem']}{part['suffix']}{INDEX_SUFFIX}")
        raise ValueError(
            f"{path} is part {int(part['part'])} of {int(part['count'])} of a checkpoint. Give the "
            f"index of all parts, {index}, with the parts beside it."
        )


def shards_of(index: Path, *, root: Path | None = None) -> list[Path]:
    """Return the files that an index names, sorted.

    Args:
      index: the file.
      root: see ``folder_files.inside``.

    Raises:
      ValueError: the index is damaged, a name leaves its folder, or files are missing.
    """
    return sorted({path for path in _places(index, root).values()})


def open_shards(
    index: Path, open_file: Callable[[Path], Any], *, root: Path | None = None
) -> dict[str, Any]:
    """Return the arrays of all files that an index names.

    Args:
      index: the file.
      open_file: path -> {name: array} of one of the files.
      root: see ``folder_files.inside``.

    Raises:
      ValueError: as ``shards_of``; or a file lacks an array that the index says it has.
    """
    places = _places(index, root)
    opened = {path: open_file(path) for path in sorted(set(places.values()))}
    absent = [name for name, path in places.items() if name not in opened[path]]
    if absent:
        shown = ", ".join(f"{name} in {places[name].name}" for name in absent[:5])
        raise ValueError(
            f"{index} and its files do not fit: {len(absent)} arrays are not there ({shown}). "
            "Fetch index and files of one version."
        )
    return {name: opened[path][name] for name, path in places.items()}


def _places(index: Path, root: Path | None) -> dict[str, Path]:
    listed = read_object(index).get("weight_map")
    if (
        not isinstance(listed, dict)
        or not listed
        or not all(isinstance(file, str) for file in listed.values())
    ):
        raise ValueError(f'{index} has no "weight_map" of arrays and their files.')
    places = {name: inside(index.parent, file, root=root) for name, file in listed.items()}
    missing = sorted({path.name for path in places.values() if not path.is_file()})
    if missing:
        raise ValueError(
            f"{index} names files that are not beside it: {', '.join(missing)}. Download them into "
            f"{index.parent}."
        )
    return places
