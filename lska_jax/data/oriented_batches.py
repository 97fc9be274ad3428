"""Batches of wide and of upright images, each kind on a canvas of its own.

Padding a wide image to the size of an upright one would double a detector's work, so a batch holds
images of one kind. Which kind follows from the step alone: the two take turns evenly, as often as
their numbers ask for, and each runs through its own endless sequence of reshuffled epochs. Batches
are therefore a function of (seed, step) here too, and no example is dropped.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from lska_jax.data.examples import Reader
from lska_jax.data.loader import HostBatch, eval_batches, train_batches
from lska_jax.data.sources import Examples


def split_by_orientation(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of wide images, and those of upright and square ones.

    Args:
      sizes: (N, 2) heights and widths.
    """
    is_wide = sizes[:, 1] > sizes[:, 0]
    return np.flatnonzero(is_wide), np.flatnonzero(~is_wide)


def oriented_train_batches(
    source: Examples,
    readers: Sequence[Reader],
    groups: Sequence[np.ndarray],
    *,
    num_workers: int = 0,
    start_step: int = 0,
    stop_step: int | None = None,
    **loading: Any,
) -> Generator[HostBatch, None, None]:
    """Yield batches of one group each; see ``loader.train_batches``.

    Args:
      source: the examples.
      readers: of each group.
      groups: positions of each group's examples, two groups; one may be empty.
      num_workers: worker processes, shared out by the groups' sizes; with any, each has one.
      start_step: first global step.
      stop_step: step to stop before; None never stops.
      **loading: the other arguments of ``loader.train_batches``.
    """
    total = sum(map(len, groups))
    is_mixed = all(map(len, groups))
    with contextlib.ExitStack() as stack:
        streams: list[Iterator[HostBatch]] = []
        for number, (reader, group) in enumerate(zip(readers, groups, strict=True)):
            share = -(-num_workers * len(group) // total)
            stream = train_batches(
                source,
                reader,
                examples=group,
                start_step=_steps_of(number, start_step, groups),
                stop_step=None if stop_step is None else _steps_of(number, stop_step, groups),
                num_workers=share if is_mixed else num_workers,
                **loading,
            )
            # Nothing is read before the first batch is asked for.
            streams.append(stack.enter_context(contextlib.closing(stream)))
        for step in itertools.count(start_step):
            if step == stop_step:
                return
            is_first = _steps_of(0, step + 1, groups) > _steps_of(0, step, groups)
            yield next(streams[0 if is_first else 1])


def oriented_eval_batches(
    source: Examples, readers: Sequence[Reader], groups: Sequence[np.ndarray], **loading: Any
) -> Generator[HostBatch, None, None]:
    """Yield batches that hold every example once, group by group; see ``loader.eval_batches``."""
    for reader, group in zip(readers, groups, strict=True):
        if len(group):
            yield from eval_batches(source, reader, examples=group, **loading)


def _steps_of(number: int, step: int, groups: Sequence[np.ndarray]) -> int:
    """Return how many of the steps before one are those of a group."""
    of_first = step * len(groups[0]) // sum(map(len, groups))
    return step - of_first if number else of_first
