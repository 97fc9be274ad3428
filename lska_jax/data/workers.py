"""Worker processes that decode: how they start, end and hand over what they made.

Grain (https://google-grain.readthedocs.io) spawns them and keeps the order. What is added here is
what it leaves open: workers that outlive a killed parent, Ctrl-C, too little shared memory, and
programs that never parsed absl's flags.

A worker takes about 1.4 s of a core to start and 270 MiB, most of it because Grain imports jax. It
uses no device: jax takes one only when it first computes.
"""

import multiprocessing
import os
import shutil
import signal
import threading

import grain
from absl import flags

from lska_jax.data.reading_now import number_this_reader

_SHARED_MEMORY = "/dev/shm"


def prefetch_in_workers(
    dataset: grain.MapDataset, *, num_workers: int, read_ahead: int, element_bytes: int
) -> grain.IterDataset:
    """Compute a dataset's elements in worker processes, in order.

    Args:
      dataset: picklable; element i is made by worker i modulo ``num_workers``.
      num_workers: how many processes, at least 1.
      read_ahead: how many elements all workers together hold ready, at most.
      element_bytes: about the size of one element.

    Raises:
      ValueError: there is too little shared memory for that many workers.
    """
    buffer_size = _fit_into_shared_memory(
        -(-read_ahead // num_workers), num_workers=num_workers, element_bytes=element_bytes
    )
    # Grain asks for the value of one of its flags, and plain Python programs never parse any.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    # Without threads of its own a worker ends as soon as the element in hand is done.
    in_this_thread = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return dataset.to_iter_dataset(in_this_thread).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=buffer_size),
        worker_init_fn=_start_worker,
    )


def _start_worker(worker: int, num_workers: int) -> None:
    del num_workers
    number_this_reader(worker)
    # Ctrl-C and many a supervisor reach the whole process group; the parent stops its workers
    # itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Wait for the parent's end: one that is killed cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _fit_into_shared_memory(buffer_size: int, *, num_workers: int, element_bytes: int) -> int:
    """Return how many elements a worker may hold ready, at most ``buffer_size``.

    Elements travel through shared memory, of which containers often get 64 MiB; writing beyond it
    would kill the worker without a message.
    """
    if not os.path.isdir(_SHARED_MEMORY):
        return buffer_size
    free = shutil.disk_usage(_SHARED_MEMORY).free
    # Besides those held ready, one is being written and one being read.
    fitting = free // (num_workers * element_bytes) - 2
    if fitting < 1:
        raise ValueError(
            f"{_SHARED_MEMORY} has {free / 2**20:.1f} MiB free, and {num_workers} worker processes "
            f"need {3 * num_workers * element_bytes / 2**20:.1f} MiB: enlarge it (containers: "
            "docker run --shm-size), or lower num_workers (0 uses threads and needs none)."
        )
    return min(buffer_size, fitting)
