"""Faults around a process: damaged checkpoints, stalled input, a full disk."""

import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from lska_jax.running.stop_signals import RESUME_EXIT_CODE
from lska_jax.training.checkpoint.checkpointer import Checkpointer
from tests.faults.lab import Injection, Lab, asked_to_stop, expect, in_one_run
from tests.faults.runs import (
    ROOT,
    Process,
    arrays,
    ended_anyway,
    kept_steps,
    what_was_lost,
)

WATCHED_WORKER = ("--config.data.num_workers=1", "--config.training.stall_seconds=5")


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
