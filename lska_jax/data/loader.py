"""From a source to batches: order, shards, padding, broken images, resume.

Everything is a function of (seed, step): global batch number ``step`` holds the same examples in
the same order with the same augmentation however many processes share it, so resuming at a step
needs no saved iterator. Training runs through an endless sequence of reshuffled epochs and no
example is dropped at their seams; evaluation visits every example once, padded and masked.

Order and random numbers are Grain's (https://google-grain.readthedocs.io). Threads and worker
processes build batches in parts of 32 rows: the first batch is there sooner, and stopping never
waits for more than a part.
"""

import dataclasses
import itertools
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from lska_jax.data.examples import Fields, Reader
from lska_jax.data.reading_now import ReadingNow
from lska_jax.data.sources import BrokenImage, Examples
from lska_jax.data.workers import prefetch_in_workers
from lska_jax.ops.processor import usable_cores

# Padding rows of the last evaluation batch carry this index; a broken image keeps its own.
_PADDING_INDEX = -1
_ROWS_PER_PART = 32
_SECONDS_TO_CLOSE = 5.0
READ_AHEAD_BATCHES = 4
# Decoding and resizing photos frees Python's lock: a second thread doubles the speed. On small
# images it gains nothing, or loses half where the threads take the lock from each other.
_THREADS = 2
_SMALL_EXAMPLE_BYTES = 64 * 64 * 3

# This process's rows of a global batch: the reader's fields, each (rows, ...), and two more,
# mask: (rows,) bool, False for padding and broken images; and
# index: (rows,) int64, position in the source, -1 for padding.
HostBatch = dict[str, np.ndarray]


class ExampleError(RuntimeError):
    """Raised where an example can be neither read nor declared broken; names the example."""


def default_num_workers(cpu_count: int | None = None) -> int:
    """Return how many worker processes to decode with: one a core beyond the first two, up to 64.

    Images/s measured on 2 cores, of 224 px photos with the whole ImageNet recipe, and of CIFAR-10
    JPEG files with padded crops:

    | | photos | CIFAR-10 |
    |---|---|---|
    | 1 thread | 225 | 7,000 |
    | 2 threads | 435 | 3,200 |
    | 1 worker | 225 | 6,300 |
    | 2 workers | 350 | 10,500 |

    A core thus gives the same either way, and as long as one or two suffice, threads save a
    worker's start (1.4 s of a core) and memory (270 MiB). Beyond that Python's lock is in the way
    and each worker adds a core. ``lska-jax bench`` measures your machine.

    Args:
      cpu_count: how many cores there are; None asks the system which ones it may use.
    """
    count = cpu_count or usable_cores()
    return max(0, min(64, count - 2))


def train_batches(
    source: Examples,
    read: Reader,
    *,
    global_batch_size: int,
    seed: int,
    examples: np.ndarray | None = None,
    rows: Sequence[int] | np.ndarray | None = None,
    start_step: int = 0,
    stop_step: int | None = None,
    num_workers: int = 0,
    reading: ReadingNow | None = None,
    draw: Callable[[np.random.Generator], int] | None = None,
) -> Generator[HostBatch, None, None]:
    """Yield this process's rows of global batches ``start_step``, ``start_step + 1``, ...

    Reading begins with the first ``next``; closing or dropping the iterator ends it.

    Args:
      source: the examples.
      read: (stored example, generator) -> fields.
      global_batch_size: examples of a step over all processes.
      seed: decides order and augmentation, together with the step; in [0, 2**32).
      examples: positions of those that are read; None is all of them.
      rows: which rows of the global batch this process holds; None is all of them.
      start_step: first global step; resuming is starting here.
      stop_step: step to stop before; None never stops.
      num_workers: worker processes; 0 reads with threads of this process. A program that uses
        workers starts from a file with an ``if __name__ == "__main__":`` guard.
      reading: where readers note the example in hand; None notes nothing.
      draw: which example each row of each step is; None takes every example once an epoch.

    Raises:
      ValueError: an argument is out of its range, or there is too little shared memory.
      ExampleError: while iterating, if reading or transforming an example fails otherwise than
        with ``BrokenImage``.
      RuntimeError: while iterating, if a worker process dies.
    """
    chosen = range(len(source)) if examples is None else examples
    augmented = (
        grain.MapDataset.source(chosen)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(_ReadAugmented(source, read, reading, draw))
    )
    _check_batch_size(global_batch_size)
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}; steps count from 0.")
    return _batches(
        augmented,
        read.fields,
        rows=rows,
        global_batch_size=global_batch_size,
        steps=range(start_step, 2**40 if stop_step is None else stop_step),
        num_workers=num_workers,
    )


def eval_batches(
    source: Examples,
    read: Reader,
    *,
    global_batch_size: int,
    examples: np.ndarray | None = None,
    rows: Sequence[int] | np.ndarray | None = None,
    num_workers: int = 0,
    reading: ReadingNow | None = None,
) -> Generator[HostBatch, None, None]:
    """Yield this process's rows of the batches that visit every example exactly once.

    The last batch is padded to full size with masked rows, so every process sees the same number
    of batches of one shape. Arguments and errors are those of ``train_batches``; ``read`` takes
    the stored example alone.
    """
    _check_batch_size(global_batch_size)
    chosen = range(len(source)) if examples is None else examples
    num_batches = -(-len(chosen) // global_batch_size)
    padded = np.full(num_batches * global_batch_size, _PADDING_INDEX)
    padded[: len(chosen)] = chosen
    return _batches(
        grain.MapDataset.source(padded).map(_ReadOrPad(source, read, reading)),
        read.fields,
        rows=rows,
        global_batch_size=global_batch_size,
        steps=range(num_batches),
        num_workers=num_workers,
    )


class _Example(NamedTuple):
    fields: dict[str, Any]
    is_usable: bool
    position: int


def _batches(
    examples: grain.MapDataset,
    fields: Fields,
    *,
    rows: Sequence[int] | np.ndarray | None,
    global_batch_size: int,
    steps: range,
    num_workers: int,
) -> Generator[HostBatch, None, None]:
    wanted = np.arange(global_batch_size) if rows is None else np.asarray(rows)
    if not len(wanted) or wanted.min() < 0 or wanted.max() >= global_batch_size:
        raise ValueError(
            f"rows {wanted.tolist()} of a global batch of {global_batch_size}: give at least one, "
            f"each in [0, {global_batch_size})."
        )
    if num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}; give 0 (threads) or more.")
    parts = _Parts(examples, fields, wanted, global_batch_size, steps)
    read_ahead = min(len(parts), READ_AHEAD_BATCHES * parts.per_step)
    # More workers than parts to read ahead would have nothing to do.
    num_workers = min(num_workers, read_ahead)
    dataset = grain.MapDataset.source(parts)
    example_bytes = sum(field.num_bytes for field in fields.values())
    if num_workers:
        part_rows = min(_ROWS_PER_PART, len(wanted))
        read = prefetch_in_workers(
            dataset,
            num_workers=num_workers,
            read_ahead=read_ahead,
            element_bytes=part_rows * example_bytes,
        )
    else:
        threads = 1 if example_bytes < _SMALL_EXAMPLE_BYTES else _THREADS
        read = dataset.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, read_ahead))
        )
    return _join_parts(read, parts)


def _check_batch_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"global_batch_size is {size}; give at least 1.")


@dataclasses.dataclass(frozen=True)
class _Parts:
    """A random-access view: the wanted rows of the wanted steps, at most 32 at a time."""

    examples: grain.MapDataset
    fields: Fields
    rows: np.ndarray
    global_batch_size: int
    steps: range

    @property
    def per_step(self) -> int:
        return -(-len(self.rows) // _ROWS_PER_PART)

    def __len__(self) -> int:
        return len(self.steps) * self.per_step

    def __getitem__(self, index: int) -> HostBatch:
        step, part = divmod(int(index), self.per_step)
        start = self.steps[step] * self.global_batch_size
        rows = self.rows[part * _ROWS_PER_PART : (part + 1) * _ROWS_PER_PART]
        examples = [self.examples[start + row] for row in rows.tolist()]
        batch = {
            name: np.stack([np.asarray(x.fields[name], field.dtype) for x in examples])
            for name, field in self.fields.items()
        }
        batch["mask"] = np.array([example.is_usable for example in examples], bool)
        batch["index"] = np.array([example.position for example in examples], np.int64)
        return batch


def _join_parts(dataset: grain.IterDataset, parts: _Parts) -> Generator[HostBatch, None, None]:
    """Yield whole batches; reading ends with this generator, however it ends."""
    iterator = iter(dataset)
    try:
        for _ in parts.steps:
            yield _concatenate(list(itertools.islice(iterator, parts.per_step)))
    finally:
        _close(iterator)


def _close(iterator: grain.DatasetIterator) -> None:
    if sys.is_finalizing():
        # The interpreter goes down and has dropped the batches: it starts no thread any more.
        iterator.close()
        return
    # Grain waits for its readers; one that is stuck must not keep a run from leaving.
    closing = threading.Thread(target=iterator.close, daemon=True)
    closing.start()
    closing.join(_SECONDS_TO_CLOSE)


def _concatenate(parts: Sequence[HostBatch]) -> HostBatch:
    # A copy in any case: what workers send lies in shared memory, which is scarce.
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclasses.dataclass(frozen=True)
class _ReadAugmented(grain.transforms.RandomMap):
    source: Examples
    read: Reader
    reading: ReadingNow | None
    draw: Callable[[np.random.Generator], int] | None

    def random_map(self, element: int | np.integer, rng: np.random.Generator) -> _Example:
        if self.draw is not None:
            element = self.draw(rng)
        return _read_one(self.source, int(element), self.read, self.reading, rng)


@dataclasses.dataclass(frozen=True)
class _ReadOrPad(grain.transforms.Map):
    source: Examples
    read: Reader
    reading: ReadingNow | None

    def map(self, element: int | np.integer) -> _Example:
        index = int(element)
        if index != _PADDING_INDEX:
            return _read_one(self.source, index, self.read, self.reading)
        return _masked_example(self.read, _PADDING_INDEX)


def _read_one(
    source: Examples,
    index: int,
    read: Reader,
    reading: ReadingNow | None,
    *rng: np.random.Generator,
) -> _Example:
    if reading is not None:
        reading.begin(index)
    try:
        return _Example(dict(read(source[index], *rng)), True, index)
    # One file that needs more memory than there is must not end a run.
    except (BrokenImage, MemoryError):
        return _masked_example(read, index)
    except Exception as error:
        failure = ExampleError(f"{_path(source, index)}: {type(error).__name__}: {error}")
        # Text survives the way out of a worker process, where any exception need not: one that
        # cannot be pickled would leave the reader waiting forever.
        failure.add_note(f"Caused by:\n{traceback.format_exc()}")
        raise failure from None
    finally:
        if reading is not None:
            reading.end()


def _path(source: Examples, index: int) -> str:
    try:
        return source.path(index)
    except Exception:
        return f"{source.name}#{index}"


def _masked_example(read: Reader, index: int) -> _Example:
    return _Example({name: field.blank() for name, field in read.fields.items()}, False, index)


class BrokenImages:
    """The undecodable images met so far, each named once; ``len`` counts them.

    Args:
      source: the source whose indices the batches carry.
      read: tells, by failing again, what is wrong with an image.
      report: called with one line for every newly met broken image.
      is_training: whether ``read`` takes a generator too.
    """

    def __init__(
        self,
        source: Examples,
        read: Reader,
        *,
        report: Callable[[str], None],
        is_training: bool = False,
    ):
        self._source = source
        self._read = read
        self._report = report
        self._is_training = is_training
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        """Return how many different images were broken."""
        return len(self._reasons)

    def note(self, batch: HostBatch) -> None:
        """Record and report the broken images of a batch."""
        broken = batch["index"][~batch["mask"] & (batch["index"] != _PADDING_INDEX)]
        for index in broken.tolist():
            if index not in self._reasons:
                self._reasons[index] = self._reason(index)
                self._report(
                    f"Broken image left out: {_path(self._source, index)} ({self._reasons[index]})"
                )

    def listing(self, *, limit: int = 50) -> str:
        """Return the broken images' paths and reasons, one a line."""
        shown = itertools.islice(self._reasons.items(), limit)
        lines = [f"  {_path(self._source, index)} ({reason})" for index, reason in shown]
        more = [f"  ... and {len(self) - limit} more"] if len(self) > limit else []
        return "\n".join(lines + more)

    def _reason(self, index: int) -> str:
        generator = (np.random.default_rng(0),) if self._is_training else ()
        try:
            self._read(self._source[index], *generator)
        except Exception as error:
            return str(error) or type(error).__name__
        return "decoded at a second attempt"
