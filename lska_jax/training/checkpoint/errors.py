"""What can be wrong with a checkpoint, in words that say what to do next."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path


class CheckpointMismatch(ValueError):
    """The checkpoint holds another structure, other shapes or other data types."""


class CheckpointDamaged(RuntimeError):
    """A checkpoint's files are not what was saved, and no other step may stand in for it."""


class CheckpointSaveFailed(RuntimeError):
    """A checkpoint could not be written; steps saved before are untouched."""


class CheckpointWarning(UserWarning):
    """Something was wrong with a checkpoint, and the run goes on without it."""


def failed_save(
    directory: Path, *, step: int, error: BaseException, last_good: int | None
) -> CheckpointSaveFailed:
    """Return the error for a save of `step` that failed with `error`.

    Args:
      directory: the folder of the run's checkpoints.
      step: the step that was to be saved.
      error: what Orbax or the file system raised; the first line of its text is kept.
      last_good: the newest complete step, None if there is none.
    """
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    try:
        free = f"{shutil.disk_usage(directory).free / 1e9:.2f} GB are free"
    except OSError as problem:
        free = f"its disk cannot be asked for free space ({problem})"
    advice = (
        "No step was saved before it."
        if last_good is None
        else f"The last good step is {last_good}: make room, then run the same command again."
    )
    return CheckpointSaveFailed(
        f"saving step {step} to {directory} failed ({reason}); {free}. {advice}"
    )


def none_intact(
    directory: Path, *, asked: Sequence[int], others: Sequence[int], report: Sequence[str]
) -> CheckpointDamaged:
    """Return the error for steps that are all damaged.

    Args:
      directory: the folder of the run's checkpoints.
      asked: the steps that were looked at.
      others: the steps besides them.
      report: what is wrong, a line a step; empty where another process knows.
    """
    return CheckpointDamaged(
        f"no intact checkpoint among the steps asked for ({list(asked)}) in {directory}: "
        f"{' | '.join(report) or 'see the message of process 0'}. "
        + (
            f"Other steps there: {list(others)}."
            if others
            else "Restore the folder from a copy, or move it away to start afresh."
        )
    )


def damage_warning(directory: Path, *, chosen: int, report: Sequence[str]) -> str:
    """Return the warning for damaged steps that an older one stands in for.

    Args:
      directory: the folder of the run's checkpoints.
      chosen: the step that is used.
      report: what is wrong with the newer ones, a line a step.
    """
    return (
        f"DAMAGED CHECKPOINT, an older one is used. {' | '.join(report)}. Going on from step "
        f"{chosen}; the damaged folders were renamed to *.damaged in {directory}."
    )
