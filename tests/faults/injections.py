"""The faults: each is injected for real, and what it cost is measured."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lska_jax.running.stop_signals import RESUME_EXIT_CODE
from lska_jax.training.checkpoint.checkpointer import Checkpointer
from tests.faults.runs import (
    ROOT,
    Ended,
    Process,
    Runs,
    arrays,
    debris,
    ended_anyway,
    kept_steps,
    records,
    saved_step,
    what_was_lost,
)

# Long enough for many interruptions of one run, short enough to run to its end each time.
EPOCHS = 8
TWO_WORKERS = ("--config.data.num_workers=2",)
# Sums over the batch are added in another order on other devices.
ROUNDING = 1e-6
WATCHED_WORKER = ("--config.data.num_workers=1", "--config.training.stall_seconds=5")


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


def killed(process: Process) -> Injection:
    started = time.monotonic()
    process.send(signal.SIGKILL)
    expect(process.end().code == -signal.SIGKILL)
    return Injection(time.monotonic() - started, [])


def kill_while_training(lab: Lab, times: int) -> Iterator[Injection]:
    """``kill -9`` at a random moment."""

    def inject(process: Process, workdir: Path) -> Injection:
        time.sleep(lab.draw.uniform(0.1, 1.0))
        return killed(process)

    return in_one_run(lab, times, inject)


def kill_during_save(lab: Lab, times: int) -> Iterator[Injection]:
    """``kill -9`` while an asynchronous save is being written."""

    def inject(process: Process, workdir: Path) -> Injection:
        folder = workdir / "checkpoints"
        before = set(folder.iterdir())
        process.until(lambda: any("tmp" in path.name for path in set(folder.iterdir()) - before))
        time.sleep(lab.draw.uniform(0.0, 0.05))
        return killed(process)

    return in_one_run(lab, times, inject)


def asked_to_stop(process: Process, number: signal.Signals) -> tuple[Injection, Ended]:
    started = time.monotonic()
    process.send(number)
    ended = process.end()
    lost = [] if ended.code == RESUME_EXIT_CODE else [f"exit code {ended.code}: {ended.errors}"]
    if "Traceback" in ended.errors:
        lost.append(ended.errors)
    return Injection(time.monotonic() - started, lost), ended


def signal_while_training(lab: Lab, times: int, number: signal.Signals) -> Iterator[Injection]:
    resumed_at = 0

    def inject(process: Process, workdir: Path) -> Injection:
        nonlocal resumed_at
        time.sleep(lab.draw.uniform(0.0, 1.0))
        injection, ended = asked_to_stop(process, number)
        if ended.code == RESUME_EXIT_CODE:
            if resumed_at and f"Resuming at step {resumed_at} " not in ended.output:
                injection.lost.append(f"did not resume at {resumed_at}: {ended.output}")
            resumed_at = saved_step(ended.errors)
            injection.lost.extend(f"debris {name}" for name in debris(workdir))
        return injection

    return in_one_run(lab, times, inject)


def sigterm_while_training(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM at a random moment."""
    return signal_while_training(lab, times, signal.SIGTERM)


def sigint_while_training(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGINT (Ctrl-C) at a random moment."""
    return signal_while_training(lab, times, signal.SIGINT)


def sigterm_during_evaluation(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM as an evaluation within training begins."""

    def inject(process: Process, workdir: Path) -> Injection:
        seen = process.output().count("evaluating ...")
        process.until(lambda: process.output().count("evaluating ...") > seen)
        return asked_to_stop(process, signal.SIGTERM)[0]

    return in_one_run(lab, times, inject)


def sigterm_to_the_group(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM to the whole process group, decoding workers included."""

    def inject(process: Process, workdir: Path) -> Injection:
        time.sleep(lab.draw.uniform(0.0, 1.0))
        os.killpg(process.process.pid, signal.SIGTERM)
        return asked_to_stop(process, signal.SIGTERM)[0]

    return in_one_run(lab, times, inject, *TWO_WORKERS)


def sigterm_while_starting(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM during start-up and compilation: at once, with nothing written."""
    for _ in range(times):
        workdir = lab.new_workdir()
        process = lab.runs.start(workdir, compiled=workdir.name)
        with ended_anyway(process):
            if lab.draw.random() < 0.5:
                process.until_says("compiling the train step")
            time.sleep(lab.draw.uniform(0.2, 2.0))
            injection, _ = asked_to_stop(process, signal.SIGTERM)
        steps = workdir / "checkpoints"
        if steps.exists() and list(steps.iterdir()):
            injection.lost.append(f"left {list(steps.iterdir())}")
        yield injection


def sigterm_while_evaluating_alone(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM to ``--eval_only`` at a random moment: nothing is written."""
    for _ in range(times):
        workdir = lab.new_workdir()
        # Single examples make the evaluation long enough to be interrupted.
        options = (f"--checkpoint={lab.uninterrupted()}", "--config.training.eval_batch_size=1")
        process = lab.runs.start(workdir, "--eval_only", *options)
        with ended_anyway(process):
            process.until_says("evaluating ...")
            injection, _ = asked_to_stop(process, signal.SIGTERM)
        if (workdir / "evaluation.json").exists():
            injection.lost.append("evaluation.json was written")
        yield injection


def signal_to_one_of_two(lab: Lab, times: int, *, is_compared: bool = True) -> Iterator[Injection]:
    """SIGTERM or SIGINT to one of two processes of two devices each: both save the same step."""
    workdir = lab.new_workdir()
    for done in range(times):
        processes = lab.runs.start_two(workdir)
        with ended_anyway(*processes):
            processes[0].until_says("Ready after")
            time.sleep(lab.draw.uniform(0.0, 1.5))
            started = time.monotonic()
            chosen = processes[done % 2]
            expect(chosen.process.poll() is None, "the run was through: make it longer")
            chosen.send(lab.draw.choice([signal.SIGTERM, signal.SIGINT]))
            ended = [process.end() for process in processes]
        lost = [
            f"exit code {one.code}: {one.errors}" for one in ended if one.code != RESUME_EXIT_CODE
        ]
        if not lost and len({saved_step(one.errors) for one in ended}) != 1:
            lost.append(f"different steps: {ended}")
        yield Injection(time.monotonic() - started, lost)
    if not is_compared:
        return
    processes = lab.runs.start_two(workdir)
    with ended_anyway(*processes):
        ended = [process.end() for process in processes]
    expect(all(one.code == 0 for one in ended), ended)
    yield Injection(None, what_was_lost(workdir, lab.uninterrupted_two()))


def other_topology(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM on 4 devices, or on 2 processes x 2 devices; the run goes on on one device."""
    for number in range(times):
        workdir = lab.new_workdir()
        processes = (
            lab.runs.start_two(workdir) if number % 2 else [lab.runs.start(workdir, devices=4)]
        )
        with ended_anyway(*processes):
            processes[0].until_says("Saved step 8 ")
            started = time.monotonic()
            processes[0].send(signal.SIGTERM)
            ended = [process.end() for process in processes]
            seconds = time.monotonic() - started
        expect(all(one.code == RESUME_EXIT_CODE for one in ended), ended)
        lab.runs.finish(workdir)
        ours, theirs = arrays(workdir), arrays(lab.uninterrupted())
        lost = [
            f"{path} differs by {np.max(np.abs(ours[path] - array))}"
            for path, array in theirs.items()
            if not np.allclose(ours[path], array, rtol=0, atol=ROUNDING)
        ]
        lines = [len(records(folder)) for folder in (workdir, lab.uninterrupted())]
        if lines[0] != lines[1]:
            lost.append(f"{lines[0]} metrics lines instead of {lines[1]}")
        yield Injection(seconds, lost)


def second_signal(lab: Lab, times: int) -> Iterator[Injection]:
    """A second SIGTERM to a process that hangs because the other one is stopped."""
    for _ in range(times):
        workdir = lab.new_workdir()
        processes = lab.runs.start_two(workdir)
        with ended_anyway(*processes):
            processes[0].until_says("Saved step 4 ")
            processes[1].send(signal.SIGSTOP)
            time.sleep(1.0)
            processes[0].send(signal.SIGTERM)
            time.sleep(2.0)
            expect(processes[0].process.poll() is None, "it did not hang")
            started = time.monotonic()
            processes[0].send(signal.SIGTERM)
            ended = processes[0].end()
            seconds = time.monotonic() - started
        lost = [] if ended.code == 128 + signal.SIGTERM else [f"exit code {ended.code}"]
        if "ended at once" not in ended.errors:
            lost.append(f"not said: {ended.errors}")
        yield Injection(seconds, lost)


def damaged(lab: Lab, times: int, damage: Callable[[Path], Path]) -> Iterator[Injection]:
    """Damage the newest step of a stopped run; a start has to choose the one before."""
    stopped = lab.folder / "stopped"
    if not stopped.exists():
        process = lab.runs.start(stopped)
        with ended_anyway(process):
            process.until_says("Saved step 8 ")
            expect(asked_to_stop(process, signal.SIGTERM)[1].code == RESUME_EXIT_CODE)
    steps = [step for step, _ in kept_steps(stopped)]
    intact = arrays(stopped / "checkpoints" / str(steps[-2]))
    for _ in range(times):
        workdir = lab.new_workdir()
        shutil.copytree(stopped, workdir, dirs_exist_ok=True)
        checkpoints = workdir / "checkpoints"
        victim = damage(checkpoints / str(steps[-1]))
        started = time.monotonic()
        with warnings.catch_warnings(record=True) as caught, Checkpointer(checkpoints) as opened:
            warnings.simplefilter("always")
            chosen = opened.latest_intact_step()
        seconds = time.monotonic() - started
        lost = []
        said = " ".join(str(warning.message) for warning in caught)
        if "DAMAGED CHECKPOINT" not in said or victim.name not in said:
            lost.append(f"{victim} not reported: {said}")
        if chosen != steps[-2]:
            lost.append(f"step {chosen} chosen instead of {steps[-2]}")
        found = arrays(checkpoints / str(chosen))
        if any(found[path].tobytes() != array.tobytes() for path, array in intact.items()):
            lost.append(f"step {chosen} has other bits")
        shutil.rmtree(workdir)
        yield Injection(seconds, lost)


def _any_file(lab: Lab, step: Path) -> Path:
    # Orbax adds these after the manifest was written. Neither holds any state: the step is
    # restored whatever is in them.
    files = [
        path
        for path in sorted(step.rglob("*"))
        if path.is_file()
        and path.stat().st_size
        and path.name not in ("commit_success.txt", "_CHECKPOINT_METADATA")
    ]
    return lab.draw.choice(files)


def flipped_bit(lab: Lab, times: int) -> Iterator[Injection]:
    """One bit of one file of the newest checkpoint flipped."""

    def damage(step: Path) -> Path:
        victim = _any_file(lab, step)
        content = bytearray(victim.read_bytes())
        content[lab.draw.randrange(len(content))] ^= 1 << lab.draw.randrange(8)
        victim.write_bytes(content)
        return victim

    return damaged(lab, times, damage)


def truncated_file(lab: Lab, times: int) -> Iterator[Injection]:
    """One file of the newest checkpoint truncated."""

    def damage(step: Path) -> Path:
        victim = _any_file(lab, step)
        os.truncate(victim, lab.draw.randrange(victim.stat().st_size))
        return victim

    return damaged(lab, times, damage)


def missing_file(lab: Lab, times: int) -> Iterator[Injection]:
    """One file of the newest checkpoint deleted."""

    def damage(step: Path) -> Path:
        victim = _any_file(lab, step)
        victim.unlink()
        return victim

    return damaged(lab, times, damage)


def missing_manifest(lab: Lab, times: int) -> Iterator[Injection]:
    """The manifest of the newest checkpoint deleted."""

    def damage(step: Path) -> Path:
        (step / "manifest.json").unlink()
        return step / "manifest.json"

    return damaged(lab, times, damage)


def stalled_worker(lab: Lab, times: int) -> Iterator[Injection]:
    """A decoding worker stopped: the watchdog names the example; then it goes on."""
    for _ in range(times):
        workdir = lab.new_workdir()
        process = lab.runs.start(workdir, *WATCHED_WORKER)
        with ended_anyway(process):
            seconds, workers = _stall(process)
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
            ended = process.end()
        said = ("STALLED: ", "waiting for a batch of training", "Going on after")
        lost = [f"not said: {text}" for text in said if text not in ended.output]
        if ended.code:
            lost.append(f"exit code {ended.code}: {ended.errors}")
        yield Injection(seconds, lost + what_was_lost(workdir, lab.uninterrupted()))


def sigterm_while_stalled(lab: Lab, times: int) -> Iterator[Injection]:
    """SIGTERM while the input is stalled: the last step is saved."""

    def inject(process: Process, workdir: Path) -> Injection:
        _stall(process)
        return asked_to_stop(process, signal.SIGTERM)[0]

    return in_one_run(lab, times, inject, *WATCHED_WORKER)


def _stall(process: Process) -> tuple[float, list[int]]:
    """Stop the workers of a run; return after how many seconds it said so, and who they are."""
    process.until_says("Ready after")
    workers = _workers(process)
    expect(bool(workers), "no worker was found")
    started = time.monotonic()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    # A busy machine may have stalled before, all by itself.
    before = process.output().count("STALLED: ")
    process.until(lambda: process.output().count("STALLED: ") > before, every=0.02)
    return time.monotonic() - started, workers


def _workers(process: Process) -> list[int]:
    """Return the decoding workers of a run: its children that were spawned to run a function."""
    threads = Path(f"/proc/{process.process.pid}/task").iterdir()
    return [
        int(child)
        for thread in threads
        for child in (thread / "children").read_text().split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def full_disk(lab: Lab, times: int) -> Iterator[Injection]:
    """The disk full: a tmpfs of 8 MiB, in a mount namespace of its own, filled to the last byte."""
    for _ in range(times):
        workdir = lab.new_workdir()
        inside, kept = workdir / "disk", workdir / "kept"
        inside.mkdir(parents=True)
        kept.mkdir()
        script = (
            f"mount -t tmpfs -o size=8m tmpfs {inside} && cp -r {kept}/. {inside} && "
            f"(sleep 0.1; while [ ! -d {inside}/checkpoints/8 ]; do sleep 0.02; done; "
            f"dd if=/dev/zero of={inside}/ballast bs=4k status=none) 2> {workdir}/dd.txt & "
            f'"$@"; code=$?; rm -f {inside}/ballast; cp -r {inside}/. {kept}; exit $code'
        )
        before = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
        process = lab.runs.start(inside, before=before)
        with ended_anyway(process):
            process.until_says("Saved step 8 ")
            started = time.monotonic()
            ended = process.end()
        lost = []
        if ended.code not in (1, 2) or "No space left on device" not in ended.errors:
            lost.append(f"exit code {ended.code}: {ended.output} {ended.errors}")
        if "Traceback" in ended.errors:
            lost.append(ended.errors)
        seconds = time.monotonic() - started
        lab.runs.finish(kept)
        yield Injection(seconds, lost + what_was_lost(kept, lab.uninterrupted()))


def can_mount() -> bool:
    """Say whether this system lets a user mount a tmpfs in a namespace of its own."""
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


FAULTS = {
    "SIGTERM while training": sigterm_while_training,
    "SIGINT while training": sigint_while_training,
    "SIGTERM during an evaluation within training": sigterm_during_evaluation,
    "SIGTERM to the process group, 2 workers": sigterm_to_the_group,
    "SIGTERM during start-up and compilation": sigterm_while_starting,
    "SIGTERM during --eval_only": sigterm_while_evaluating_alone,
    "signal to one of 2 processes x 2 devices": signal_to_one_of_two,
    "SIGTERM, then another number of devices": other_topology,
    "second SIGTERM to a process that hangs": second_signal,
    "kill -9 while training": kill_while_training,
    "kill -9 during an asynchronous save": kill_during_save,
    "flipped bit in the newest checkpoint": flipped_bit,
    "truncated file in it": truncated_file,
    "missing file in it": missing_file,
    "missing manifest in it": missing_manifest,
    "input worker stopped, then continued": stalled_worker,
    "SIGTERM while the input is stalled": sigterm_while_stalled,
    "full disk": full_disk,
}
