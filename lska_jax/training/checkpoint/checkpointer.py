"""Checkpoints of a training run, on Orbax: atomic, verified, and never loaded in part.

What this module adds to Orbax, which writes and reads the arrays:

- a SHA-256 manifest inside every step, verified before anything is restored, because Orbax
  restores a flipped bit without noticing; a damaged step is set aside loudly and the previous
  complete one is used;
- a comparison of names, shapes and data types before a restore, because Orbax casts data types
  without a word;
- errors that name the step, the folder and the last good step.

A folder of checkpoints has one writer: the run that owns it. Read it from elsewhere with
`load_tree`, which changes nothing. With several JAX processes, every process makes the
same calls; process 0 alone hashes, verifies and cleans.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from lska_jax.running.parallel import is_main_process, value_of_main, wait_for_all
from lska_jax.training.checkpoint.errors import (
    CheckpointDamaged,
    CheckpointMismatch,
    CheckpointSaveFailed,
    CheckpointWarning,
    damage_warning,
    failed_save,
    none_intact,
)
from lska_jax.training.checkpoint.folders import (
    UNFINISHED_SUFFIX,
    check_writable,
    finish_replacements,
    first_intact,
    make_openable,
    make_way,
    remove_debris,
    set_aside,
    step_folders,
)
from lska_jax.training.checkpoint.load_tree import LoadedTree, load_tree, with_shardings
from lska_jax.training.checkpoint.manifest import (
    STATE_NAME,
    ManifestError,
    canonical_metadata,
    read_manifest,
    write_manifest,
)
from lska_jax.training.checkpoint.orbax_quiet import quiet_orbax
from lska_jax.training.checkpoint.pending import PendingSave, SaveTooSlow
from lska_jax.training.checkpoint.preservation import METRIC_NAME, kept_steps
from lska_jax.training.checkpoint.tree_difference import (
    check_same_tree,
    describe_tree,
    tree_bytes,
    tree_difference,
)

__all__ = [
    "CheckpointDamaged",
    "CheckpointMismatch",
    "CheckpointSaveFailed",
    "CheckpointWarning",
    "Checkpointer",
    "LoadedTree",
    "check_writable",
    "load_tree",
    "tree_bytes",
    "tree_difference",
]


class Checkpointer:
    """Save and restore the steps of one run below `directory`.

    Kept are the newest `keep_latest` steps and, besides them, the `keep_best` steps with the
    highest metric; equal metrics favour the newer step. A step saved without a metric is never
    the best.

    Args:
      directory: where `<directory>/<step>/` is written; made if missing.
      keep_latest: how many of the newest steps to keep, at least 1.
      keep_best: how many of the best steps to keep, 0 for none.
      asynchronous: write in the background. `save` then returns as soon as the arrays are
        copied off the devices, so the state may be donated right after; an error surfaces
        at the next `save`, `wait` or `close`.
      save_seconds: how long a save may take; one that takes longer has failed.
      record_problems: returns what is wrong with the metadata of a step, a phrase each; a step
        with any counts as damaged.

    Raises:
      ValueError: `keep_latest` or `keep_best` out of range.
      OSError: the directory cannot be made or written.
      CheckpointDamaged: there are steps, and none can be opened.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_latest: int = 2,
        keep_best: int = 1,
        asynchronous: bool = True,
        save_seconds: int | float = 600,
        record_problems: Callable[[Mapping[str, Any]], list[str]] = lambda record: [],
    ) -> None:
        quiet_orbax()
        policy = kept_steps(keep_latest=keep_latest, keep_best=keep_best)
        import orbax.checkpoint.experimental.v1 as ocp

        self._ocp = ocp
        self._directory = Path(directory).absolute()
        self._asynchronous = asynchronous
        self._save_seconds = save_seconds
        self._record_problems = record_problems
        # Told of every complete save, from a thread.
        self.report: Callable[[str], None] | None = None
        self._pending: PendingSave | None = None
        self._is_stuck = False
        self._failure: CheckpointSaveFailed | None = None
        self._verified: set[int] = set()
        check_writable(self._directory, bytes_needed=0)
        if is_main_process():
            remove_debris(self._directory)
            make_openable(self._directory)
        wait_for_all("lska_jax:checkpoints_cleaned")
        self._orbax = ocp.training.Checkpointer(self._directory, preservation_policy=policy)

    @property
    def directory(self) -> Path:
        """The folder that holds one folder a step."""
        return self._directory

    def save(
        self,
        step: int,
        state: Any,
        *,
        metadata: Mapping[str, Any],
        metric: float | None = None,
        is_replacing: bool = False,
    ) -> None:
        """Save `state` as `step`; one that is already saved is left: in a run it has one state.

        Args:
          step: global step, not negative.
          state: pytree of arrays (dictionaries, NamedTuples, dataclasses), sharded or not.
          metadata: JSON values to find again with the state: configuration, model name, epoch.
            Numbers that are not finite come back as None.
          metric: score of this step, higher is better; None or a non-finite value where there
            is none.
          is_replacing: save anew what was saved without its metric; the old one stays until then.

        Raises:
          ValueError: a negative step, a leaf that is not an array, metadata that JSON cannot
            hold, or a metric for a step saved without it that is not to be replaced.
          CheckpointSaveFailed: this save, or one before it, could not be written. There are
            no further saves after that: start the run again.
        """
        if step < 0:
            raise ValueError(f"step is {step}; a global step counts from 0.")
        self.wait()
        if self._failure is not None:
            raise self._failure
        if metric is not None and not math.isfinite(metric):
            metric = None
        if step in self.all_steps():
            saved_metric = read_manifest(self._folder(step))["metric"]
            if metric in (None, saved_metric):
                return
            if not is_replacing:
                raise ValueError(
                    f"Step {step} is already saved in {self._directory} with metric "
                    f"{saved_metric}, and now came metric {metric}: evaluate first, then save once."
                )
        else:
            is_replacing = False
        describe_tree(state)
        kept = canonical_metadata(metadata)
        started = time.monotonic()
        if is_replacing:
            wait_for_all("lska_jax:replacement_known")
            if is_main_process():
                make_way(self._folder(step))
            self._verified.discard(step)
            wait_for_all("lska_jax:replacement_made_way")
            self._orbax.reload()

        def commit() -> None:
            # Orbax calls this on process 0 when every file is in the temporary folder and only
            # the rename is left; it does not say which folder, hence the search by its name.
            for folder in self._directory.glob(f"{step}{UNFINISHED_SUFFIX}*"):
                write_manifest(folder, step=step, metadata=kept, metric=metric)

        context = self._ocp.Context()
        context.async_options.post_finalization_callback = commit
        context.async_options.timeout_secs = math.ceil(self._save_seconds)
        try:
            with context:
                response = self._orbax.save_async(
                    step,
                    state,
                    checkpointable_name=STATE_NAME,
                    force=True,
                    metrics=None if metric is None else {METRIC_NAME: float(metric)},
                )
        except Exception as error:
            raise self._save_failed(step, error) from error
        self._pending = PendingSave(
            step, response, started=started, seconds=self._save_seconds, report=self.report
        )
        if not self._asynchronous:
            self.wait()

    def restore(self, abstract_state: Any, *, step: int | None = None) -> tuple[Any, dict]:
        """Restore a step, bit for bit, onto the shardings of `abstract_state`.

        Args:
          abstract_state: pytree of `jax.ShapeDtypeStruct`, of the saved structure; a leaf
            without a sharding goes to the first local device.
          step: which step; None for the newest one that is intact. Damaged steps newer than
            that are renamed to `<step>.damaged`, with a warning that names the files.

        Returns:
          The state, and the metadata it was saved with.

        Raises:
          FileNotFoundError: there is no checkpoint, or not this step.
          CheckpointDamaged: the step asked for, or every step there is, is damaged.
          CheckpointMismatch: the checkpoint has another structure, other shapes or data types.
        """
        self.wait()
        steps = self.all_steps()
        if not steps or (step is not None and step not in steps):
            wanted = "a checkpoint" if step is None else f"step {step}"
            raise FileNotFoundError(
                f"There is not {wanted} in {self._directory}; "
                f"steps there: {', '.join(map(str, steps)) or 'none'}."
            )
        step = self._choose_intact(steps[::-1] if step is None else [step])
        saved = self._ocp.metadata(self._folder(step), checkpointable_name=STATE_NAME).metadata
        check_same_tree(saved, abstract_state, where=str(self._folder(step)))
        state = self._orbax.load(
            step, with_shardings(abstract_state), checkpointable_name=STATE_NAME
        )
        return state, self.metadata(step)

    def metadata(self, step: int) -> dict[str, Any]:
        """Return the metadata that `step` was saved with.

        Raises:
          FileNotFoundError: there is no such step, or its manifest cannot be trusted.
        """
        self.wait()
        try:
            return read_manifest(self._folder(step))["metadata"]
        except ManifestError as error:
            raise FileNotFoundError(f"There is no metadata of step {step}: {error}.") from error

    def latest_step(self) -> int | None:
        """Return the newest complete step, or None."""
        steps = self.all_steps()
        return steps[-1] if steps else None

    def latest_intact_step(self) -> int | None:
        """Return the newest step whose files are what was saved, or None if there is no step.

        This is where `restore` goes on from. Damaged steps newer than it are renamed to
        `<step>.damaged`, with a warning that names the files.

        Raises:
          CheckpointDamaged: there are steps, and every one is damaged.
        """
        self.wait()
        steps = self.all_steps()
        return self._choose_intact(steps[::-1]) if steps else None

    def best_step(self) -> int | None:
        """Return the step with the highest metric (the newest of equals), or None."""
        complete = self.all_steps()
        scored = [
            (found.metrics[METRIC_NAME], found.step)
            for found in self._orbax.checkpoints
            if found.step in complete and found.metrics
        ]
        return max(scored)[1] if scored else None

    def all_steps(self) -> list[int]:
        """Return every complete step, oldest first; one being written is not in it."""
        return [step for step, _ in step_folders(self._directory)]

    def wait(self) -> None:
        """Wait until the save in progress, if any, is complete.

        Raises:
          CheckpointSaveFailed: it could not be written.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.wait()
        except Exception as error:
            # Orbax's close would wait on for a save that nobody else waits for.
            self._is_stuck = isinstance(error, SaveTooSlow)
            raise self._save_failed(pending.step, error) from error
        if is_main_process():
            finish_replacements(self._directory)

    def close(self) -> None:
        """Finish the save in progress and release Orbax's threads.

        Raises:
          CheckpointSaveFailed: the save in progress could not be written.
        """
        try:
            self.wait()
        finally:
            try:
                if not self._is_stuck:
                    self._orbax.close()
            except Exception:
                # Orbax raises a failed save's error again; it was reported already.
                if self._failure is None:
                    raise

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointSaveFailed as failure:
            if error is None:
                raise
            # The body's own error matters more; this one must not hide it.
            warnings.warn(str(failure), CheckpointWarning, stacklevel=2)

    def _folder(self, step: int) -> Path:
        return self._directory / str(step)

    def _choose_intact(self, candidates: list[int]) -> int:
        """Return the first intact step of `candidates`; all processes get the same answer."""
        chosen, report = -1, list[str]()
        if is_main_process():
            chosen, report = first_intact(
                self._directory,
                candidates,
                skip=self._verified,
                record_problems=self._record_problems,
            )
            if chosen >= 0:
                self._verified.add(chosen)
                for step in candidates[: len(report)]:
                    set_aside(self._folder(step))
        chosen = value_of_main(chosen)
        if chosen < 0:
            others = [step for step in self.all_steps() if step not in candidates]
            raise none_intact(self._directory, asked=candidates, others=others, report=report)
        # Orbax remembers the steps it saw. Another process may have listed them after process 0
        # renamed some, so none of them can tell by itself whether that list is out of date.
        self._orbax.reload()
        if report:
            warnings.warn(
                damage_warning(self._directory, chosen=chosen, report=report),
                CheckpointWarning,
                stacklevel=3,
            )
        return chosen

    def _save_failed(self, step: int, error: BaseException) -> CheckpointSaveFailed:
        self._failure = failed_save(
            self._directory, step=step, error=error, last_good=self.latest_step()
        )
        return self._failure
