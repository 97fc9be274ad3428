"""The manifest of one checkpoint: what was saved, and the SHA-256 of every file.

Orbax restores a flipped bit without noticing, so each step's folder carries a `manifest.json`
that lists its files with their hashes, next to the run's own metadata. It is written into the
temporary folder just before Orbax renames that folder into place: a step either is complete
and has a manifest, or it does not exist.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lska_jax.weights.folder_files import sha256_of

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
# The name under which Orbax stores a step's arrays.
STATE_NAME = "state"

# Orbax adds these, or changes them, after the manifest was written. Neither holds any state.
_ORBAX_NOTE = "_CHECKPOINT_METADATA"
_CHANGED_BY_COMMIT = frozenset({MANIFEST_NAME, _ORBAX_NOTE, "commit_success.txt"})
_METRIC_FOLDER = "metrics/"


class ManifestError(ValueError):
    """A manifest that is missing, cannot be read, or was changed after it was written."""


def canonical_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return `metadata` as JSON keeps it: tuples become lists, keys strings, NaN None.

    Args:
      metadata: what the caller wants to find next to the arrays; any JSON values.

    Raises:
      ValueError: a value JSON cannot hold.
    """
    try:
        # A loss that is not a number must not cost the checkpoint it is reported with.
        return json.loads(json.dumps(dict(metadata)), parse_constant=lambda name: None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Checkpoint metadata must be plain JSON (str, numbers, bool, None, lists and dicts), "
            f"but {error}. Convert such values before saving."
        ) from error


def write_manifest(
    folder: Path, *, step: int, metadata: Mapping[str, Any], metric: float | None
) -> None:
    """Hash every file below `folder` and write its `manifest.json`.

    Args:
      folder: a step's folder with all its files in place.
      step: the global step that was saved.
      metadata: JSON values, from `canonical_metadata`.
      metric: the score of this step, higher is better; None where none was measured.
    """
    content = {
        "format": FORMAT_VERSION,
        "step": step,
        "metric": metric,
        "metadata": dict(metadata),
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": sha256_of(path),
            }
            for path in sorted(_listed_files(folder))
        },
    }
    # The manifest vouches for the files; this line lets it vouch for itself.
    signed = {**content, "sha256": _sha256_of_json(content)}
    (folder / MANIFEST_NAME).write_text(json.dumps(signed, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of the step in `folder`.

    Raises:
      ManifestError: there is none, it is not ours, or its own hash does not fit.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recorded = content.pop("sha256")
    except FileNotFoundError as error:
        raise ManifestError(f"{path} is missing") from error
    except (OSError, UnicodeDecodeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read ({error!r})") from error
    except RecursionError as error:
        raise ManifestError(f"{path} is nested too deeply") from error
    if recorded != _sha256_of_json(content):
        raise ManifestError(f"{path} does not match its own hash")
    if content.get("format") != FORMAT_VERSION:
        raise ManifestError(
            f"{path} has format {content.get('format')!r}; this version reads {FORMAT_VERSION}"
        )
    wrong = [name for name, is_right in _TYPES.items() if not is_right(content.get(name))]
    if wrong:
        raise ManifestError(f"{path} has no proper {', '.join(wrong)}")
    return content


def missing_files(folder: Path) -> list[str]:
    """Return what is obviously incomplete in `folder`, from names and sizes alone.

    Returns:
      One readable line a problem, each naming its file; empty when nothing is missing.
    """
    try:
        files = read_manifest(folder)["files"]
    except ManifestError as error:
        return [str(error)]
    problems = []
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != facts["bytes"]:
            problems.append(f"{path} has {path.stat().st_size} bytes instead of {facts['bytes']}")
    return problems


def find_damage(folder: Path) -> list[str]:
    """Return everything in `folder` that differs from its manifest, reading every byte.

    Returns:
      One readable line a problem, each naming its file; empty for an intact step.
    """
    problems = missing_files(folder)
    if problems:
        return problems
    manifest = read_manifest(folder)
    if folder.name.isdecimal() and folder.name != str(manifest["step"]):
        problems = [f"{folder / MANIFEST_NAME} is of step {manifest['step']}: it was renamed"]
    return problems + _changed_files(folder, manifest["files"])


def find_opening_damage(folder: Path) -> list[str]:
    """Return the damage of `folder` that Orbax fails at as it opens the folder of all steps.

    It then reads the metric and its own note of every step, whichever is wanted. A manifest that
    cannot be read is left to `find_damage`.
    """
    try:
        files = read_manifest(folder)["files"]
    except ManifestError:
        return []
    metric = {name: facts for name, facts in files.items() if name.startswith(_METRIC_FOLDER)}
    problems = _changed_files(folder, metric)
    note = folder / _ORBAX_NOTE
    try:
        is_note = isinstance(json.loads(note.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        # Orbax does without it.
        is_note = True
    return problems if is_note else [*problems, f"{note} is no JSON object"]


def _is_file_table(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(facts, dict)
        and _is_count(facts.get("bytes"))
        and isinstance(facts.get("sha256"), str)
        and ".." not in Path(name).parts
        and not Path(name).is_absolute()
        for name, facts in value.items()
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_metric(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))


_TYPES = {
    "step": _is_count,
    "metric": _is_metric,
    "metadata": lambda value: isinstance(value, dict),
    "files": _is_file_table,
}


def _changed_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    problems = []
    for name, facts in files.items():
        path = folder / name
        try:
            intact = sha256_of(path) == facts["sha256"]
        except OSError as error:
            problems.append(f"{path} cannot be read ({error})")
            continue
        if not intact:
            problems.append(f"{path} was changed after it was saved (SHA-256 differs)")
    return problems


def _listed_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in _CHANGED_BY_COMMIT:
            yield path


def _sha256_of_json(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
