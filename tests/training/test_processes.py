"""``train.py`` as processes of their own: several that share a run, and some that are killed."""

import ast
import functools
import json
import os
import random
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from lska_jax.running import parallel
from lska_jax.running.stop_signals import RESUME_EXIT_CODE
from lska_jax.training.checkpoint.load_tree import LoadedTree, load_tree
from lska_jax.training.loop import train
from tests.faults.runs import saved_step
from tests.training.checkpoint_states import flip_a_bit

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS_PER_EPOCH = 3, 1442 // 240
STEPS, CHECKPOINT_EVERY = EPOCHS * STEPS_PER_EPOCH, 4
TEST_EXAMPLES = 355
TIMEOUT_SECONDS = 300

TINY_RUN = (
    "--config.model.k=11",
    "--config.model.dims=(8,)",
    "--config.model.depths=(1,)",
    "--config.model.ffn_ratios=(2,)",
    "--config.data.num_workers=0",
    f"--config.optimizer.epochs={EPOCHS}",
    "--config.optimizer.warmup_epochs=1",
    # A bias before a BatchNorm has no gradient but rounding; Adam would make full steps of it.
    "--config.optimizer.epsilon=1e-2",
    "--config.training.batch_size=240",
    "--config.training.eval_batch_size=120",
    "--config.training.eval_every_epochs=1",
    "--config.training.log_every_steps=1",
    f"--config.training.checkpoint_every_steps={CHECKPOINT_EVERY}",
)

# The processes' sums over the batch are added in another order.
LOSS_RTOL = 1e-5
PARAMETER_ATOL = 1e-6


class TrainCommand:
    """Starts ``train.py`` on a tiny run, in a folder of all runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # Compiled as in this process and kept in its cache; with one device instead of eight.
            "XLA_FLAGS": re.sub(r"(device_count)=\d+", r"\1=1", os.environ["XLA_FLAGS"]),
        }

    def start(self, workdir: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "train.py", "--config", "configs/digits.py", *TINY_RUN]
        return subprocess.Popen(
            [*command, f"--workdir={workdir}", *options],
            cwd=ROOT,
            env={**self._environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_two(self, workdir: Path) -> list[subprocess.Popen[str]]:
        """Start two processes that find each other as those of a SLURM job do."""
        job = {
            "SLURM_JOB_ID": str(random.randrange(10**6)),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "JAX_COORDINATOR_PORT": str(free_port()),
        }
        return [
            self.start(workdir, SLURM_PROCID=str(number), SLURM_LOCALID=str(number), **job)
            for number in range(2)
        ]


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> TrainCommand:
    return TrainCommand(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def uninterrupted(command) -> Path:
    """Return a run of this process on one device."""
    workdir = command.folder / "uninterrupted"
    with pytest.MonkeyPatch.context() as patch:
        one = functools.partial(parallel.make_mesh, devices=jax.devices()[:1])
        patch.setattr(parallel, "make_mesh", one)
        config = tiny_config()
        # The step that two processes are compared with is one of the first.
        config.training.keep_latest = STEPS
        train(config, workdir=workdir)
    return workdir


def tiny_config() -> ConfigDict:
    """Return what the command line makes of the tiny run's options."""
    config = runpy.run_path(str(ROOT / "configs" / "digits.py"))["get_config"]()
    for option in TINY_RUN:
        name, value = option.removeprefix("--config.").split("=")
        config.update_from_flattened_dict({name: ast.literal_eval(value)})
    return config


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def finish(
    processes: Sequence[subprocess.Popen[str]],
) -> list[subprocess.CompletedProcess[str]]:
    outputs = [process.communicate(timeout=TIMEOUT_SECONDS) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


class Stopped(NamedTuple):
    """What two processes say, of which one was asked to stop.

    Attributes:
      workdir: of the run.
      processes: the two.
      saved: the step that they left.
    """

    workdir: Path
    processes: Sequence[subprocess.CompletedProcess[str]]
    saved: int


@pytest.fixture(scope="module")
def of_two_processes(command) -> Stopped:
    """Return a run of two processes, of which the second is sent SIGTERM."""
    workdir = command.folder / "two_processes"
    processes = command.start_two(workdir)
    # Beyond the first epoch, which ends with an evaluation and a checkpoint.
    wait_for_lines(processes[0], workdir, STEPS_PER_EPOCH + 2)
    processes[1].send_signal(signal.SIGTERM)
    stopped = finish(processes)
    return Stopped(workdir, stopped, load_tree(workdir).step)


@pytest.fixture(scope="module")
def went_on(command, of_two_processes) -> Stopped:
    """Return the run after what the two had saved was damaged and two others finished it."""
    workdir, _, saved = of_two_processes
    copy = Path(shutil.copytree(workdir, command.folder / "went_on"))
    flip_a_bit(copy / "checkpoints" / str(saved))
    finished = finish(command.start_two(copy))
    assert [one.returncode for one in finished] == [0] * 2, [one.stderr for one in finished]
    return Stopped(copy, finished, saved)


def wait_for_lines(process: subprocess.Popen[str], workdir: Path, lines: int) -> None:
    """Wait until so many lines of metrics are written."""
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def records(workdir: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what a clock has measured."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    measured = ("time", "train/images_per_second")
    return [{name: line[name] for name in line if name not in measured} for line in lines]


def column(workdir: Path, name: str) -> list[float]:
    return [record[name] for record in records(workdir) if name in record]


def arrays(loaded: LoadedTree) -> dict[str, np.ndarray]:
    groups = ("params", "batch_stats")
    return {
        f"{prefix}{group}/{path}": array
        for prefix, tree in (("", loaded.tree), ("ema/", loaded.tree["ema"]))
        for group in groups
        for path, array in tree[group].items()
    }


def test_sigterm_to_one_of_two_processes_stops_both_at_the_same_step(of_two_processes):
    stopped = of_two_processes.processes
    assert [one.returncode for one in stopped] == [RESUME_EXIT_CODE] * 2, stopped
    assert {saved_step(one.stderr) for one in stopped} == {of_two_processes.saved}
    assert STEPS_PER_EPOCH < of_two_processes.saved < STEPS


def test_two_processes_have_the_losses_of_one(uninterrupted, of_two_processes):
    losses = column(of_two_processes.workdir, "train/loss")
    assert len(losses) == of_two_processes.saved
    expected = column(uninterrupted, "train/loss")[: len(losses)]
    np.testing.assert_allclose(losses, expected, rtol=LOSS_RTOL)


def test_two_processes_have_the_parameters_and_statistics_of_one(uninterrupted, of_two_processes):
    """At the end of the first epoch, the last step that both runs have saved."""
    assert_same_arrays(of_two_processes.workdir, uninterrupted, step=STEPS_PER_EPOCH)


def test_two_processes_count_every_evaluation_example_once(uninterrupted, of_two_processes):
    assert_same_evaluations(of_two_processes.workdir, uninterrupted, count=1)


def test_only_the_first_of_two_processes_writes_and_talks(of_two_processes):
    workdir, (first, second), saved = of_two_processes
    assert f"for {STEPS} steps of 240 images on 2 cpu device(s)" in first.stdout
    # XLA's transport says on its own that it is connected.
    assert [line for line in second.stdout.splitlines() if "[Gloo]" not in line] == []
    assert len(records(workdir)) == saved + 1
    assert (workdir / "log.txt").read_text().count("Ready after") == 1
    assert len(list((workdir / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_agree_on_the_step_to_use_when_the_newest_is_damaged(went_on):
    workdir, (first, _), saved = went_on
    before = (saved - 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    # The first epoch ends with a checkpoint too.
    before = max(before, STEPS_PER_EPOCH)
    assert f"Resuming at step {before} of {STEPS}." in first.stdout
    assert (workdir / "checkpoints" / f"{saved}.damaged").is_dir()


@pytest.mark.slow
def test_two_processes_that_went_on_end_with_what_one_ends_with(uninterrupted, went_on):
    losses = column(went_on.workdir, "train/loss")
    assert len(losses) == STEPS
    np.testing.assert_allclose(losses, column(uninterrupted, "train/loss"), rtol=LOSS_RTOL)
    assert_same_arrays(went_on.workdir, uninterrupted, step=STEPS)
    assert_same_evaluations(went_on.workdir, uninterrupted, count=EPOCHS)


@pytest.mark.slow
def test_only_the_first_of_two_processes_that_went_on_writes_and_talks(went_on):
    workdir, (_, second), _ = went_on
    assert [line for line in second.stdout.splitlines() if "[Gloo]" not in line] == []
    assert len(records(workdir)) == STEPS + EPOCHS
    # Once for each of the two starts.
    assert (workdir / "log.txt").read_text().count("Ready after") == 2
    assert len(list((workdir / "tensorboard").iterdir())) == 2


def assert_same_arrays(workdir: Path, other: Path, *, step: int) -> None:
    ours, theirs = (arrays(load_tree(folder, step=step)) for folder in (workdir, other))
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        np.testing.assert_allclose(array, theirs[path], atol=PARAMETER_ATOL, err_msg=path)


def assert_same_evaluations(workdir: Path, other: Path, *, count: int) -> None:
    for name in ("eval/top1", "eval/top5"):
        right = np.array(column(workdir, name)) * TEST_EXAMPLES
        np.testing.assert_allclose(right, np.round(right), atol=1e-9)
    ours, theirs = column(workdir, "eval/loss"), column(other, "eval/loss")
    assert len(ours) == count
    np.testing.assert_allclose(ours, theirs[:count], rtol=LOSS_RTOL)


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_is_ended_with_a_message_and_its_stacks(command):
    workdir = command.folder / "one_killed"
    together = (
        f"--coordinator_address=localhost:{free_port()}",
        "--num_processes=2",
        "--lost_process_seconds=5",
        # It must not come to its end before.
        "--config.optimizer.epochs=100000",
    )
    first, second = (
        command.start(workdir, *together, f"--process_id={number}") for number in (0, 1)
    )
    wait_for_lines(first, workdir, 1)
    second.send_signal(signal.SIGKILL)
    survivor, _ = finish([first, second])
    assert survivor.returncode not in (0, None)
    assert re.search(r"process|task", survivor.stderr)
    assert re.search(r"leaves; the others are ended|unhealthy|UNAVAILABLE", survivor.stderr)
    assert "Traceback" in survivor.stderr or "most recent call first" in survivor.stderr


@pytest.mark.slow
def test_when_one_process_refuses_its_config_the_other_does_not_wait_for_it(command):
    workdir = command.folder / "one_refuses"
    together = (
        f"--coordinator_address=localhost:{free_port()}",
        "--num_processes=2",
        "--lost_process_seconds=5",
    )
    first, second = finish(
        [
            command.start(workdir, *together, "--process_id=0"),
            command.start(workdir, *together, "--process_id=1", "--config.training.batch_size=241"),
        ]
    )
    assert "[process 1 of 2] Error: The config does not fit the devices" in second.stderr
    assert "[process 1 of 2] leaves" in second.stderr
    assert second.returncode == 1
    assert first.returncode not in (0, None)


def kill_after(process: subprocess.Popen[str], workdir: Path, *, lines: int, delay: float) -> None:
    """Send SIGKILL once so many lines of metrics are written, and a moment later."""
    wait_for_lines(process, workdir, lines)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def killed_twice(command) -> tuple[Path, str, subprocess.CompletedProcess[str]]:
    """Return a run that was killed at two random moments and then finished, and the moments."""
    workdir = command.folder / "killed"
    choose = random.Random()
    moments = []
    for lines in (range(1, 7), range(8, 12)):
        moments.append({"lines": choose.choice(lines), "delay": choose.uniform(0, 0.03)})
        kill_after(command.start(workdir), workdir, **moments[-1])
    (finished,) = finish([command.start(workdir)])
    assert finished.returncode == 0, (moments, finished.stderr)
    return workdir, str(moments), finished


@pytest.fixture(scope="module")
def left_alone(command) -> Path:
    """Return a run of a process like the killed ones: bits depend on the devices of a process."""
    workdir = command.folder / "left_alone"
    (finished,) = finish([command.start(workdir)])
    assert finished.returncode == 0, finished.stderr
    return workdir


@pytest.mark.slow
def test_after_kills_the_same_command_goes_on_from_a_checkpoint(killed_twice):
    _, moments, finished = killed_twice
    # The second kill came after the first epoch, which ends with a checkpoint.
    assert "Resuming at step" in finished.stdout, moments


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(left_alone, killed_twice):
    workdir, moments, _ = killed_twice
    ours, theirs = load_tree(workdir, skip=()), load_tree(left_alone, skip=())
    assert ours.step == theirs.step == STEPS
    ours_bits, theirs_bits = arrays(ours), arrays(theirs)
    assert ours_bits.keys() == theirs_bits.keys()
    for path, array in ours_bits.items():
        assert array.tobytes() == theirs_bits[path].tobytes(), (path, moments)


@pytest.mark.slow
def test_a_killed_run_has_every_line_of_its_metrics_once(left_alone, killed_twice):
    workdir, moments, _ = killed_twice
    assert records(workdir) == records(left_alone), moments
