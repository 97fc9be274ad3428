"""Worker processes: the batches of threads, and an orderly end whatever happens."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lska_jax.data.augment import EvalTransform, TrainTransform
from lska_jax.data.digits import DigitsSource
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import ExampleError, HostBatch, eval_batches, train_batches

AUGMENT = TrainTransform(image_size=8, channels=1, crop="padded", pad=2)


def digit_batches(num_workers: int, **arguments: Any) -> Generator[HostBatch, None, None]:
    arguments = {"global_batch_size": 40, "seed": 5, "stop_step": 5} | arguments
    return train_batches(
        DigitsSource("test"), LabelledImages(AUGMENT), num_workers=num_workers, **arguments
    )


def test_workers_give_the_batches_of_threads_and_end() -> None:
    # Parts of 32 and 8 rows, five batches: the two workers' turns fall across batches.
    for ours, expected in zip(digit_batches(2), digit_batches(0), strict=True):
        for name in ("image", "label", "mask", "index"):
            np.testing.assert_array_equal(ours[name], expected[name])
    assert not multiprocessing.active_children()


def test_dropping_the_iterator_closes_it_and_ends_the_workers() -> None:
    batches = digit_batches(1, stop_step=None)
    next(batches)
    assert len(multiprocessing.active_children()) == 1
    del batches
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_exception_in_a_worker_reaches_the_reader_with_the_path() -> None:
    class FailingInWorker:  # local: pickled with its code, which no worker can import
        image_size = 8
        channels = 1

        def __call__(self, image: np.ndarray) -> np.ndarray:
            error = ZeroDivisionError("no such luck")
            error.lock = lambda: None  # type: ignore[attr-defined]
            raise error

    batches = eval_batches(
        DigitsSource("test"), LabelledImages(FailingInWorker()), global_batch_size=8, num_workers=1
    )
    with pytest.raises(ExampleError, match="digits#.*: ZeroDivisionError: no such luck"):
        next(batches)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error() -> None:
    class Killing:
        image_size = 8
        channels = 1

        def __call__(self, image: np.ndarray) -> np.ndarray:
            os.kill(os.getpid(), 9)
            return image

    batches = eval_batches(
        DigitsSource("test"), LabelledImages(Killing()), global_batch_size=8, num_workers=1
    )
    with pytest.raises(RuntimeError, match="exit code -9"):
        next(batches)
    assert not multiprocessing.active_children()


def test_too_little_shared_memory_is_refused_before_workers_start() -> None:
    huge = LabelledImages(EvalTransform(image_size=10**6))
    with pytest.raises(ValueError, match="shm-size"):
        eval_batches(DigitsSource("test"), huge, global_batch_size=8, num_workers=1)


SCRIPT = """
import os, signal, sys
from lska_jax.data.augment import EvalTransform
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import eval_batches
from lska_jax.data.digits import DigitsSource

def main():
    read = LabelledImages(EvalTransform(image_size=8, channels=1, crop_pct=1.0))
    batches = eval_batches(DigitsSource("test"), read, global_batch_size=8, num_workers=1)
    print(len(next(batches)["label"]), flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise KeyError("a mistake of the caller")

if __name__ == "__main__":
    main()
"""


def run_script(tmp_path: Path, argument: str) -> subprocess.CompletedProcess[str]:
    """Run a plain program; output ends only when all its processes have ended."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-W", "error", str(script), argument],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
        timeout=600,  # never reached unless a worker hangs
    )


@pytest.mark.slow
def test_a_program_that_fails_ends_with_its_own_error_alone(tmp_path: Path) -> None:
    result = run_script(tmp_path, "fail")
    assert result.stdout == "8\n"
    assert result.returncode == 1
    assert result.stderr.strip().endswith("KeyError: 'a mistake of the caller'")
    assert result.stderr.count("Traceback") == 1


@pytest.mark.slow
def test_workers_end_with_a_program_that_is_killed(tmp_path: Path) -> None:
    result = run_script(tmp_path, "kill")
    assert result.stdout == "8\n"
    assert result.returncode == -9
