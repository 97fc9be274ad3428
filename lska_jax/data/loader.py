"""From a source to batches: order, shards, padding, broken images, resume.

Everything is a function of (seed, step): global batch number ``step`` holds the same examples in
the same order with the same augmentation however many processes share it, so resuming at a step
needs no saved iterator. Training runs through an endless sequence of reshuffled epochs and no
example is dropped at their seams; evaluation visits every example once, padded and masked.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import grain
import numpy as np

from lska_jax.data.augment import EvalTransform
from lska_jax.data.decode import BrokenImage
from lska_jax.data.sources import Source

# Padding rows of the last evaluation batch carry this index; a broken image keeps its own.
_PADDING_INDEX = -1
_READ_AHEAD_BATCHES = 4


class HostBatch(TypedDict):
    """This process's rows of a global batch.

    Attributes:
      image: (rows, S, S, C) uint8.
      label: (rows,) int32.
      mask: (rows,) bool, False for padding and broken images.
      index: (rows,) int64, position in the source, -1 for padding.
    """

    image: np.ndarray
    label: np.ndarray
    mask: np.ndarray
    index: np.ndarray


def default_num_workers(cpu_count: int | None = None) -> int:
    """Return how many worker processes to decode with: one a core beyond the first two, up to 16.

    Threads in the process itself (0 workers) are the faster choice on two cores, where a worker
    only competes with the computation; ``python -m lska_jax.data.bench`` measures your machine.
    """
    count = cpu_count or len(os.sched_getaffinity(0))
    return max(0, min(16, count - 2))


def train_batches(
    source: Source,
    transform: Callable[[Any, np.random.Generator], np.ndarray],
    *,
    global_batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
    start_step: int = 0,
    stop_step: int | None = None,
    num_workers: int = 0,
) -> Iterator[HostBatch]:
    """Yield this process's rows of global batches ``start_step``, ``start_step + 1``, ...

    Args:
      source: the examples.
      transform: (encoded or uint8 image, generator) -> uint8 (S, S, C).
      global_batch_size: examples of a step over all processes.
      seed: decides order and augmentation, together with the step.
      rows: which rows of the global batch this process holds; None is all of them.
      start_step: first global step; resuming is starting here.
      stop_step: step to stop before; None never stops.
      num_workers: worker processes; 0 reads with threads of this process.
    """
    examples = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(_ReadAugmented(source, transform))
    )
    return _batches(
        examples,
        rows=range(global_batch_size) if rows is None else rows,
        global_batch_size=global_batch_size,
        steps=range(start_step, 2**40 if stop_step is None else stop_step),
        num_workers=num_workers,
    )


def eval_batches(
    source: Source,
    transform: Callable[[Any], np.ndarray],
    *,
    global_batch_size: int,
    rows: Sequence[int] | None = None,
    num_workers: int = 0,
) -> Iterator[HostBatch]:
    """Yield this process's rows of the batches that visit every example exactly once.

    The last batch is padded to full size with masked rows, so every process sees the same number
    of batches of one shape. Arguments are those of ``train_batches``.
    """
    num_batches = -(-len(source) // global_batch_size)
    examples = grain.MapDataset.range(num_batches * global_batch_size).map(
        _ReadOrPad(source, transform)
    )
    return _batches(
        examples,
        rows=range(global_batch_size) if rows is None else rows,
        global_batch_size=global_batch_size,
        steps=range(num_batches),
        num_workers=num_workers,
    )


def _batches(
    examples: grain.MapDataset,
    *,
    rows: Sequence[int],
    global_batch_size: int,
    steps: range,
    num_workers: int,
) -> Iterator[HostBatch]:
    selected = _RowsOfSteps(examples, np.asarray(rows), global_batch_size, steps)
    batched = grain.MapDataset.source(selected).batch(len(rows))
    if not num_workers:
        threads = grain.ReadOptions(num_threads=2, prefetch_buffer_size=_READ_AHEAD_BATCHES)
        return iter(batched.to_iter_dataset(threads))
    # Workers take whole batches in turn, which keeps the order of steps.
    workers = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
    one_thread = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(batched.to_iter_dataset(one_thread).mp_prefetch(workers))


@dataclasses.dataclass(frozen=True)
class _RowsOfSteps:
    """A random-access view: the wanted rows of the wanted steps, one example an index."""

    examples: grain.MapDataset
    rows: np.ndarray
    global_batch_size: int
    steps: range

    def __len__(self) -> int:
        return len(self.steps) * len(self.rows)

    def __getitem__(self, index: int) -> HostBatch:
        step, row = divmod(int(index), len(self.rows))
        return self.examples[self.steps[step] * self.global_batch_size + int(self.rows[row])]


@dataclasses.dataclass(frozen=True)
class _ReadAugmented(grain.transforms.RandomMap):
    source: Source
    transform: Callable[[Any, np.random.Generator], np.ndarray]

    def random_map(self, element: int, rng: np.random.Generator) -> HostBatch:
        return _read(self.source, lambda image: self.transform(image, rng), element)


@dataclasses.dataclass(frozen=True)
class _ReadOrPad(grain.transforms.Map):
    source: Source
    transform: Callable[[Any], np.ndarray]

    def map(self, element: int) -> HostBatch:
        if element < len(self.source):
            return _read(self.source, self.transform, element)
        return _masked_example(self.transform, _PADDING_INDEX)


def _read(source: Source, transform: Callable[[Any], np.ndarray], index: int) -> HostBatch:
    record = source[index]
    try:
        image = transform(record.image)
    except BrokenImage:
        return _masked_example(transform, index)
    return HostBatch(
        image=image,
        label=np.int32(record.label),  # type: ignore[typeddict-item]
        mask=np.bool_(True),  # type: ignore[typeddict-item]
        index=np.int64(index),  # type: ignore[typeddict-item]
    )


def _masked_example(transform: Any, index: int) -> HostBatch:
    shape = (transform.image_size, transform.image_size, transform.channels)
    return HostBatch(
        # Mid-grey is what normalisation maps to about zero: it hardly moves BatchNorm's statistics.
        image=np.full(shape, 128, np.uint8),
        label=np.int32(0),  # type: ignore[typeddict-item]
        mask=np.bool_(False),  # type: ignore[typeddict-item]
        index=np.int64(index),  # type: ignore[typeddict-item]
    )


class BrokenImages:
    """The undecodable images met so far, each named once.

    Args:
      source: the source whose indices the batches carry.
      transform: tells, by failing again, what is wrong with an image.
      report: called with one line for every newly met broken image.
    """

    def __init__(
        self,
        source: Source,
        transform: Callable[..., np.ndarray],
        *,
        report: Callable[[str], None],
    ):
        self._source = source
        self._transform = transform
        self._report = report
        self._reasons: dict[int, str] = {}

    def note(self, batch: HostBatch) -> None:
        """Record and report the broken images of a batch."""
        broken = batch["index"][~batch["mask"] & (batch["index"] != _PADDING_INDEX)]
        for index in broken.tolist():
            if index not in self._reasons:
                self._reasons[index] = self._reason(index)
                self._report(
                    f"Broken image left out: {self._source.path(index)} ({self._reasons[index]})"
                )

    def listing(self, *, limit: int = 50) -> str:
        """Return the broken images' paths and reasons, one a line."""
        lines = [f"  {self._source.path(i)} ({why})" for i, why in self._reasons.items()]
        more = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
        return "\n".join(lines[:limit] + more)

    def _reason(self, index: int) -> str:
        generator = () if _is_deterministic(self._transform) else (np.random.default_rng(0),)
        try:
            self._transform(self._source[index].image, *generator)
        except BrokenImage as error:
            return str(error)
        return "decoded at a second attempt"


def _is_deterministic(transform: Callable[..., np.ndarray]) -> bool:
    return isinstance(transform, EvalTransform)
