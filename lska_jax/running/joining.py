"""How long a process waits for the others of its run, and what it says meanwhile.

JAX waits in silence, and at the end aborts the process with frames of C++. A shell inside a job
(``srun --pty``, ``salloc``) has the variables of a job of several tasks, and nobody to wait for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping

# How long a process waits before it says so.
_SECONDS_IN_SILENCE = 5.0
# Tasks of a batch job start minutes apart; at a terminal somebody waits.
_SECONDS_TO_JOIN, _SECONDS_AT_A_TERMINAL = 300.0, 20.0
# SLURM's number of the step that an interactive allocation (salloc) opens its shell in.
_INTERACTIVE_STEP = str(0xFFFFFFFA)
_FAILURE = 2


def alone_in_slurm(environment: Mapping[str, str] = os.environ) -> str:
    """Return why this process is alone though SLURM describes several tasks; "" if it is not.

    Args:
      environment: variables of the process.
    """
    tasks = environment.get("SLURM_NTASKS", "")
    if not tasks.isdecimal() or int(tasks) < 2:
        return ""
    if environment.get("SLURM_STEP_NUM_TASKS") == "1":
        return f"SLURM describes {tasks} tasks, and this step has one"
    if environment.get("SLURM_STEP_ID") == _INTERACTIVE_STEP:
        return f"SLURM describes {tasks} tasks, and this is the step of an interactive shell"
    return ""


def seconds_to_join() -> float:
    """Return how long to wait for the other processes."""
    return _SECONDS_AT_A_TERMINAL if sys.stdin and sys.stdin.isatty() else _SECONDS_TO_JOIN


@contextlib.contextmanager
def watched_joining(*, described_by: str, seconds: float) -> Iterator[None]:
    """Say what the block waits for, and end the process where it waits too long.

    Args:
      described_by: what says that there are other processes.
      seconds: how long the block may take.
    """
    joined = threading.Event()
    advice = "If this process is alone, start it with --distributed=off."

    def watch() -> None:
        if joined.wait(min(_SECONDS_IN_SILENCE, seconds)):
            return
        _say(f"Waiting for the other processes that {described_by}, {seconds:.0f} s. {advice}")
        if not joined.wait(max(seconds - _SECONDS_IN_SILENCE, 0.0)):
            _say(f"Error: The other processes did not come in {seconds:.0f} s. {advice}")
            # The main thread is inside JAX, which would abort with a core dump.
            os._exit(_FAILURE)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        joined.set()


def describe_cluster(environment: Mapping[str, str] = os.environ) -> str:
    """Return what says that there are other processes, where no option does."""
    for system, variable in (("SLURM", "SLURM_NTASKS"), ("Open MPI", "OMPI_COMM_WORLD_SIZE")):
        if variable in environment:
            return f"{system} describes ({variable}={environment[variable]})"
    return "the cluster describes in which JAX found itself"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
