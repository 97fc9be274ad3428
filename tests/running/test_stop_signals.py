"""Signals of processes that do nothing else: start-up, a busy main thread, a restart, a second one.

The runs that save and go on are in ``tests/faults``.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lska_jax.running.stop_signals import RESUME_EXIT_CODE

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 60

BEGIN = """
import hashlib, os, signal, sys, time
from lska_jax.running.stop_signals import StopRequested, StopSignals, hold_signals
def say(text):
    print(text, flush=True)
"""
# The main thread stays in C, without Python's lock, for as long as it takes: as in a compile.
BUSY_IN_C = "say('busy'); hashlib.pbkdf2_hmac('sha256', b'word', b'salt', 2**31 - 1)"
BODIES = {
    "starting": f"signals = StopSignals(); signals.listen(); {BUSY_IN_C}",
    "restarted": (
        "hold_signals()\n"
        "if 'RESTARTED' not in os.environ:\n"
        "    os.environ['RESTARTED'] = '1'\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.execv(sys.executable, sys.orig_argv)\n"
        "say('restarted'); StopSignals().listen(); time.sleep(60)"
    ),
    "hangs": (f"signals = StopSignals(); signals.listen(); signals.keep_requests()\n{BUSY_IN_C}"),
    "waits": (
        "signals = StopSignals(); signals.listen(); signals.keep_requests()\n"
        "try:\n"
        "    with signals.interruptible():\n"
        "        say('busy'); time.sleep(60)\n"
        "except StopRequested:\n"
        "    say(f'{signals.name} {signals.is_requested}')"
    ),
    "overruled": (
        "signals = StopSignals(); signals.listen()\n"
        "signal.signal(signal.SIGTERM, lambda *_: say('by somebody else'))\n"
        "signals.keep_requests(); say('busy')\n"
        "while not signals.is_requested: time.sleep(0.01)\n"
        "say(signals.name)"
    ),
}


@pytest.fixture
def started():
    """Return what starts a process; none is left behind."""
    processes = []

    def start(name):
        processes.append(_start(name))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def _start(name):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + BODIES[name]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() in ("busy\n", "restarted\n")
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_run_with_nothing_to_save_ends_it_at_once_though_it_computes(started, number):
    process = started("starting")
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == RESUME_EXIT_CODE
    assert errors.startswith(f"{number.name} while starting: nothing to save.")
    assert errors.count("\n") == 1


def test_a_signal_before_a_restart_through_exec_is_answered_after_it(started):
    process = started("restarted")
    _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == RESUME_EXIT_CODE
    assert "SIGTERM while starting" in errors


def test_two_signals_of_one_moment_are_one_request_and_a_later_one_ends_at_once(started):
    process = started("hangs")
    process.send_signal(signal.SIGTERM)
    assert "A second signal ends at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.startswith("SIGINT again: ended at once")


def test_a_wait_of_the_main_thread_is_interrupted(started):
    process = started("waits")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, output) == (0, "SIGINT True\n"), errors


def test_handlers_that_a_device_runtime_put_in_the_way_are_replaced(started):
    process = started("overruled")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (process.returncode, output) == (0, "SIGTERM\n"), errors
