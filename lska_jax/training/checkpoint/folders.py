"""The folder of a run's checkpoints: which steps are in it, and whether it can be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lska_jax.training.checkpoint.errors import CheckpointWarning, damage_warning, none_intact
from lska_jax.training.checkpoint.manifest import (
    MANIFEST_NAME,
    find_damage,
    find_opening_damage,
    missing_files,
    read_manifest,
)

# Orbax writes `<step><this>...` and renames it to `<step>` when everything is in it.
UNFINISHED_SUFFIX = ".orbax-checkpoint-tmp"
# The step that a save of the same step, with its metric, is about to replace.
_REPLACED_SUFFIX = ".replaced"


def step_folders(directory: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every finished step in `directory`, oldest first."""
    if not directory.is_dir():
        return []
    found = [
        (int(path.name), path)
        for path in directory.iterdir()
        # Python takes digits of any script for digits, and 007 for 7; neither is a step's name.
        if re.fullmatch(r"0|[1-9][0-9]*", path.name) and path.is_dir()
    ]
    return sorted(found)


def remove_debris(directory: Path) -> None:
    """Remove what a killed run left: unfinished saves, and deletions that were interrupted.

    A step with files missing is such a deletion when a newer step is complete: Orbax deletes a
    step only after a newer one is in place.
    """
    for unfinished in directory.glob(f"*{UNFINISHED_SUFFIX}*"):
        shutil.rmtree(unfinished)
    finish_replacements(directory)
    folders = step_folders(directory)
    complete = [step for step, folder in folders if not missing_files(folder)]
    for step, folder in folders:
        if complete and step < complete[-1] and step not in complete:
            shutil.rmtree(folder)


def make_way(folder: Path) -> None:
    """Rename a step's folder so that the step can be saved anew; `finish_replacements` is next."""
    folder.rename(folder.with_name(f"{folder.name}{_REPLACED_SUFFIX}"))


def finish_replacements(directory: Path) -> None:
    """Remove the steps that were replaced; put those back whose replacement is not complete."""
    for replaced in directory.glob(f"*{_REPLACED_SUFFIX}"):
        folder = replaced.with_name(replaced.name.removesuffix(_REPLACED_SUFFIX))
        # A folder with the step's name is complete: Orbax renames it when everything is in it.
        if folder.is_dir():
            shutil.rmtree(replaced)
        else:
            replaced.rename(folder)


def first_intact(
    directory: Path,
    candidates: Sequence[int],
    *,
    skip: Collection[int] = (),
    record_problems: Callable[[Mapping[str, Any]], list[str]] = lambda record: [],
) -> tuple[int, list[str]]:
    """Return the first intact step, -1 if there is none, and what is wrong with those before.

    Args:
      directory: the folder of the run's checkpoints.
      candidates: steps in the order of preference.
      skip: steps that are known to be intact.
      record_problems: returns what is wrong with a step's metadata.
    """
    report: list[str] = []
    for step in candidates:
        folder = directory / str(step)
        damage = [] if step in skip else find_damage(folder)
        if not damage and step not in skip:
            problems = record_problems(read_manifest(folder)["metadata"])
            damage = [f"{folder / MANIFEST_NAME}: {problem}" for problem in problems]
        if not damage:
            return step, report
        report.append(f"step {step}: " + "; ".join(damage))
    return -1, report


def set_aside(folder: Path) -> None:
    """Rename a damaged step's folder to `<step>.damaged`, which nobody takes for a step."""
    target = folder.with_name(f"{folder.name}.damaged")
    number = 2
    while target.exists():
        target = folder.with_name(f"{folder.name}.damaged-{number}")
        number += 1
    folder.rename(target)


def make_openable(directory: Path) -> None:
    """Set steps aside that Orbax would fail at as it opens `directory`, with a warning.

    Raises:
      CheckpointDamaged: these are all the steps there are.
    """
    damaged = {}
    for step, folder in step_folders(directory):
        problems = find_opening_damage(folder)
        if problems:
            damaged[step] = "; ".join(problems)
    report = [f"step {step}: {problems}" for step, problems in damaged.items()]
    others = [step for step, _ in step_folders(directory) if step not in damaged]
    if damaged and not others:
        raise none_intact(directory, asked=[*damaged], others=[], report=report)
    for step in damaged:
        set_aside(directory / str(step))
    if damaged:
        message = damage_warning(directory, chosen=others[-1], report=report)
        warnings.warn(message, CheckpointWarning, stacklevel=3)


def check_writable(directory: str | Path, *, bytes_needed: int) -> None:
    """Make `directory`, write a probe file into it, and compare the free space.

    Args:
      directory: where a run wants to write; made if missing, its parents too.
      bytes_needed: room the run will need there, 0 to skip that comparison.

    Raises:
      OSError: the folder cannot be made or written, or its disk has less room than that.
    """
    directory = Path(directory).absolute()
    probe = directory / f".write_probe.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"probe")
        finally:
            # A full disk makes the file and no content.
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write to {directory} ({error.strerror}); choose another output folder or "
            f"change its permissions",
        ) from error
    if free < bytes_needed:
        raise OSError(
            errno.ENOSPC,
            f"{directory} has {free / 1e9:.2f} GB free and needs {bytes_needed / 1e9:.2f} GB for "
            f"the checkpoints to keep; make room or choose another output folder",
        )
