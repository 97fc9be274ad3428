"""Files of a folder that came from elsewhere: which may be read, their hashes, their JSON."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any


def inside(folder: Path, name: str, *, root: Path | None = None) -> Path:
    """Return the path of a file in a folder.

    Args:
      folder: the folder.
      name: of the file, as the folder states it.
      root: the folder that links in it may point into; None is the folder itself.

    Raises:
      ValueError: the name, or a link that it is, leaves the folder (or ``root``).
    """
    place = PurePosixPath(name.replace("\\", "/"))
    path = folder / name
    allowed = (root or folder).resolve()
    if (
        place.is_absolute()
        or ".." in place.parts
        or not place.name
        or ":" in name
        or not path.resolve().is_relative_to(allowed)
    ):
        raise ValueError(f"{name!r} leaves the model folder {folder}; that is refused.")
    return path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds.

    Raises:
      ValueError: it holds none.
    """
    return object_of(path.read_bytes(), path)


def object_of(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object that the bytes of a file are; errors are those of ``read_object``."""
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object.")
    return record
