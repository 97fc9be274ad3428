"""Where faults are injected, and what an injection is compared with."""

import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from lska_jax.running.stop_signals import RESUME_EXIT_CODE
from tests.faults.runs import (
    Ended,
    Process,
    Runs,
    ended_anyway,
    what_was_lost,
)

# Long enough for many interruptions of one run, short enough to run to its end each time.
EPOCHS = 8


class Injection(NamedTuple):
    """One fault that was injected.

    Attributes:
      seconds: from the fault to the process's end, or to its report; None where nothing was
        injected and a disturbed run was compared after its end.
      lost: what was lost, in words; empty is nothing.
    """

    seconds: float | None
    lost: list[str]


@dataclass
class Lab:
    """Where faults are injected, and the undisturbed runs to compare with."""

    folder: Path
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    epochs: int = EPOCHS

    def __post_init__(self) -> None:
        self.runs = Runs(self.folder, epochs=self.epochs)

    def new_workdir(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="run_", dir=self.folder))

    def uninterrupted(self) -> Path:
        """Return a finished run of one process."""
        workdir = self.folder / "uninterrupted"
        if not workdir.exists():
            self.runs.finish(workdir)
        return workdir

    def uninterrupted_two(self) -> Path:
        """Return a finished run of two processes with two devices each."""
        workdir = self.folder / "uninterrupted_two"
        if not workdir.exists():
            processes = self.runs.start_two(workdir)
            with ended_anyway(*processes):
                ended = [process.end() for process in processes]
            expect(all(one.code == 0 for one in ended), ended)
        return workdir


def expect(condition: bool, *evidence: object) -> None:
    """Stop where a fault was not injected as meant."""
    if not condition:
        raise AssertionError("\n".join(map(str, evidence)))


def in_one_run(
    lab: Lab,
    times: int,
    inject: Callable[[Process, Path], Injection],
    *options: str,
) -> Iterator[Injection]:
    """Disturb one run so often, then let it finish and compare it with one that was not.

    Args:
      lab: where.
      times: how often.
      inject: disturbs a process that is ready, and waits for its end.
      options: flags of the run.
    """
    workdir, done = lab.new_workdir(), 0
    while done < times:
        process = lab.runs.start(workdir, *options)
        with ended_anyway(process):
            process.until_says("Ready after")
            if process.process.poll() is None:
                yield inject(process, workdir)
                done += 1
                continue
        # It was through before it could be disturbed: the rest happens to another one.
        yield Injection(None, what_was_lost(workdir, lab.uninterrupted()))
        workdir = lab.new_workdir()
    lab.runs.finish(workdir, *options)
    yield Injection(None, what_was_lost(workdir, lab.uninterrupted()))


def asked_to_stop(process: Process, number: signal.Signals) -> tuple[Injection, Ended]:
    started = time.monotonic()
    process.send(number)
    ended = process.end()
    lost = [] if ended.code == RESUME_EXIT_CODE else [f"exit code {ended.code}: {ended.errors}"]
    if "Traceback" in ended.errors:
        lost.append(ended.errors)
    return Injection(time.monotonic() - started, lost), ended
