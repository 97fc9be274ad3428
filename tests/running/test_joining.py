"""A process that waits for others says so in seconds, and never ends in frames of C++."""

import subprocess
import sys

import pytest

from lska_jax.running.joining import alone_in_slurm, describe_cluster

WAITING = (
    "import sys, time\n"
    "from lska_jax.running import joining\n"
    "joining._SECONDS_IN_SILENCE = 0.1\n"
    "with joining.watched_joining(described_by='SLURM describes', seconds=float(sys.argv[1])):\n"
    "    time.sleep(float(sys.argv[2]))\n"
    "print('joined')\n"
)


def wait(*, seconds: float, for_seconds: float) -> tuple[int, str, str]:
    command = [sys.executable, "-c", WAITING, str(seconds), str(for_seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_who_joins_at_once_says_nothing():
    assert wait(seconds=30, for_seconds=0) == (0, "joined\n", "")


def test_who_waits_says_for_what_and_goes_on():
    status, output, errors = wait(seconds=30, for_seconds=0.5)
    assert (status, output) == (0, "joined\n")
    assert "Waiting for the other processes that SLURM describes" in errors
    assert "--distributed=off" in errors


def test_who_waits_too_long_ends_with_one_message():
    status, output, errors = wait(seconds=0.3, for_seconds=60)
    assert (status, output) == (2, "")
    assert errors.splitlines()[-1].startswith("Error: The other processes did not come")
    assert "--distributed=off" in errors.splitlines()[-1]


JOB = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("more", "is_alone"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, True),
        ({"SLURM_STEP_ID": "4294967290"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_NTASKS": "many", "SLURM_STEP_NUM_TASKS": "1"}, False),
    ],
)
def test_a_shell_inside_a_job_is_alone(more, is_alone):
    assert bool(alone_in_slurm({**JOB, **more})) == is_alone


def test_what_describes_the_processes_is_named():
    assert describe_cluster(JOB) == "SLURM describes (SLURM_NTASKS=4)"
    assert "OMPI_COMM_WORLD_SIZE=2" in describe_cluster({"OMPI_COMM_WORLD_SIZE": "2"})
    assert "JAX found itself" in describe_cluster({})
