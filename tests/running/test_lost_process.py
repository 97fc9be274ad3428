"""A process whose partner is killed does not wait for it for ever."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120

# Meets the other process, then waits for what does not come.
PROGRAM = """
import sys, time, numpy as np
from jax.experimental.multihost_utils import process_allgather
from lska_jax.running import parallel
parallel.start_processes(
    coordinator_address=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]),
    timeout_seconds=5,
)
with parallel.leaving_together():
    process_allgather(np.ones(1))
    print("together", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_is_ended_with_a_message_and_its_stacks():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = f"localhost:{probe.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, coordinator, str(number)],
            cwd=ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        survivor, victim = processes
        lines = iter(survivor.stdout.readline, "")
        assert any("together" in line for line in lines)
        victim.send_signal(signal.SIGKILL)
        _, errors = survivor.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert survivor.returncode not in (0, None)
    assert re.search(r"unhealthy|UNAVAILABLE", errors)
    assert "most recent call first" in errors
