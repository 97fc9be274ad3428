"""Real ``train.py`` processes on a tiny run, and what is compared when one was disturbed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lska_jax.training.checkpoint.load_tree import load_tree

ROOT = Path(__file__).parents[2]
STEPS_PER_EPOCH = 1442 // 240
TIMEOUT_SECONDS = 600

TINY_RUN = (
    "--config=configs/digits.py",
    "--config.model.k=11",
    "--config.model.dims=(8,)",
    "--config.model.depths=(1,)",
    "--config.model.ffn_ratios=(2,)",
    "--config.data.num_workers=0",
    "--config.optimizer.warmup_epochs=1",
    # A bias before a BatchNorm has no gradient but rounding; Adam would make full steps of it.
    "--config.optimizer.epsilon=1e-2",
    "--config.training.batch_size=240",
    "--config.training.eval_batch_size=120",
    "--config.training.eval_every_epochs=1",
    # A record over five steps is open at most moments.
    "--config.training.log_every_steps=5",
    "--config.training.checkpoint_every_steps=4",
)
_MEASURED = ("time", "train/images_per_second")


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    output: str
    errors: str


class Process:
    """One ``train.py``; its output goes to files, so that nothing waits for a reader."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=self._output,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def output(self) -> str:
        return _text(self._output)

    def errors(self) -> str:
        return _text(self._errors)

    def until(self, condition: Callable[[], bool], *, every: float = 0.002) -> bool:
        """Wait for a condition; return whether it came before the process ended."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            if self.process.poll() is not None:
                return condition()
            if time.monotonic() > deadline:
                self.process.kill()
                raise TimeoutError(f"{self.output()}\n{self.errors()}")
            time.sleep(every)
        return True

    def until_says(self, text: str) -> bool:
        return self.until(lambda: text in self.output(), every=0.02)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ended:
        try:
            code = self.process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise TimeoutError(f"{self.output()}\n{self.errors()}") from None
        ended = Ended(code, self.output(), self.errors())
        self._output.close()
        self._errors.close()
        return ended


class Runs:
    """Starts tiny runs in one folder; they share compiled programs.

    Args:
      folder: where they are.
      epochs: how long they are.
    """

    def __init__(self, folder: Path, *, epochs: int):
        self.folder = folder
        self.epochs = epochs
        self.steps = epochs * STEPS_PER_EPOCH

    def start(
        self,
        workdir: Path,
        *options: str,
        devices: int = 1,
        compiled: str = "compiled",
        before: Sequence[str] = (),
    ) -> Process:
        """Start a run.

        Args:
          workdir: its folder.
          options: flags besides those of the tiny run.
          devices: how many virtual devices the process has.
          compiled: name of the folder of compiled programs.
          before: a command to run it under.
        """
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # Runs are compared with each other only, and compiling takes most of their time.
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        length = f"--config.optimizer.epochs={self.epochs}"
        command = [sys.executable, "train.py", *TINY_RUN, length, f"--workdir={workdir}", *options]
        return Process([*before, *command], environment)

    def start_two(self, workdir: Path, *options: str, devices: int = 2) -> list[Process]:
        """Start a run of two processes."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        together = (f"--coordinator_address=localhost:{port}", "--num_processes=2")
        return [
            self.start(workdir, *together, f"--process_id={number}", *options, devices=devices)
            for number in (0, 1)
        ]

    def finish(self, workdir: Path, *options: str, devices: int = 1) -> Ended:
        """Run to the end, which has to be a good one."""
        ended = self.start(workdir, *options, devices=devices).end()
        if ended.code:
            raise AssertionError(f"exit code {ended.code}: {ended.output}\n{ended.errors}")
        return ended


def records(workdir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what a clock has measured."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [
        {name: value for name, value in json.loads(line).items() if name not in _MEASURED}
        for line in lines
    ]


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Return every array of the newest state, the optimizer's too, by path."""
    found: dict[str, np.ndarray] = {}

    def collect(tree: Any, path: str) -> None:
        children = (
            tree.items()
            if isinstance(tree, dict)
            else enumerate(tree)
            if isinstance(tree, list | tuple)
            else None
        )
        if children is None:
            # The optimizer's chain has links without a state.
            if tree is not None:
                found[path] = np.asarray(tree)
        else:
            for name, child in children:
                collect(child, f"{path}/{name}")

    collect(load_tree(workdir, skip=()).tree, "")
    return found


def kept_steps(workdir: Path) -> list[tuple[int, float | None]]:
    """Return the steps that are kept, with their metric, oldest first."""
    folders = (workdir / "checkpoints").iterdir()
    steps = sorted(int(folder.name) for folder in folders if folder.name.isdigit())
    manifests = [workdir / "checkpoints" / str(step) / "manifest.json" for step in steps]
    return [
        (step, json.loads(manifest.read_text())["metric"])
        for step, manifest in zip(steps, manifests, strict=True)
    ]


def newest_and_best(workdir: Path) -> tuple[Any, Any]:
    """Return the newest and the best step, with their metric."""
    kept = kept_steps(workdir)
    scored = [(metric, step) for step, metric in kept if metric is not None]
    return kept[-1], max(scored)


def debris(workdir: Path) -> list[str]:
    """Return what lies among the checkpoints and is none."""
    folder = workdir / "checkpoints"
    return [path.name for path in folder.iterdir() if not path.name.isdigit()]


def what_was_lost(workdir: Path, uninterrupted: Path) -> list[str]:
    """Return how a finished run differs from one that was not disturbed; empty is bit for bit."""
    lost = []
    ours, theirs = arrays(workdir), arrays(uninterrupted)
    if ours.keys() != theirs.keys():
        lost.append(f"other arrays: {sorted(ours.keys() ^ theirs.keys())}")
    else:
        changed = [path for path in ours if ours[path].tobytes() != theirs[path].tobytes()]
        if changed:
            lost.append(f"{len(changed)} of {len(ours)} arrays have other bits: {changed[:3]}")
    lost += different_records(records(workdir), records(uninterrupted))
    ours_kept, theirs_kept = newest_and_best(workdir), newest_and_best(uninterrupted)
    if ours_kept != theirs_kept:
        lost.append(f"newest and best step are {ours_kept} instead of {theirs_kept}")
    if debris(workdir):
        lost.append(f"debris {debris(workdir)}")
    return lost


def different_records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[str]:
    """Return the first difference of two lists of metrics."""
    if ours == theirs:
        return []
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return [f"metrics line {number + 1} is {mine} instead of {other}"]
    return [f"{len(ours)} metrics lines instead of {len(theirs)}"]


def saved_step(text: str) -> int:
    """Return the step that an interrupted run says it has saved."""
    found = re.search(r"after step (\d+), which is saved", text)
    if not found:
        raise AssertionError(f"no step saved: {text}")
    return int(found[1])


@contextmanager
def ended_anyway(*processes: Process) -> Iterator[None]:
    """Leave no process behind, whatever happens inside."""
    try:
        yield
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.process.kill()
                process.process.wait()


def _text(stream: Any) -> str:
    # A second handle would share the position with the writer; pread does not.
    size = os.fstat(stream.fileno()).st_size
    return os.pread(stream.fileno(), size, 0).decode(errors="replace")
