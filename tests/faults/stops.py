"""Faults that end a process: kills and signals, at any moment."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lska_jax.running.stop_signals import RESUME_EXIT_CODE
from tests.faults.lab import Injection, Lab, asked_to_stop, expect, in_one_run
from tests.faults.runs import (
    Process,
    arrays,
    debris,
    ended_anyway,
    records,
    saved_step,
    what_was_lost,
)

TWO_WORKERS = ("--config.data.num_workers=2",)
# Sums over the batch are added in another order on other devices.
ROUNDING = 1e-6


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


def signal_to_one_of_two(lab: Lab, times: int) -> Iterator[Injection]:
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
