"""Memory that is kept when it is freed, and given back when that is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lska_jax.running.huge_pages import HUGE_PAGES, VARIABLE

ROOT = Path(__file__).parents[2]
# A thread, as the compiler's, has a heap of its own. Blocks are freed but for the last.
PROGRAM = """
import threading
from lska_jax.running.huge_pages import release_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def allocate():
    blocks = [bytearray(b"x") * 50_000 for _ in range(4_000)]
    kept.append(blocks.pop())

kept = []
thread = threading.Thread(target=allocate)
thread.start()
thread.join()
before = resident()
release_freed_memory()
print(before, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_stays_until_it_is_released():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, VARIABLE: HUGE_PAGES},
        capture_output=True,
        text=True,
        check=True,
    )
    before, after = map(float, done.stdout.split())
    assert before - after > 100
