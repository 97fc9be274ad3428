"""Train for 2,000 steps on digits and watch the process: memory and open files must not grow.

python -m tests.faults.long_run
"""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from tests.faults.runs import STEPS_PER_EPOCH, Runs, ended_anyway

EVERY_STEPS = 200
# What a run allocates once, buffers of saves and evaluations included, it has by then.
SETTLED_AT_STEP = 600
# glibc keeps freed memory and rounds to huge pages of 2 MiB; a leak of one batch (240 KB with its
# labels) in each step would be 330 MB.
MAX_GROWTH_MB = 30
# A save or an evaluation in progress has files of its own open.
MAX_MORE_FILES = 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.long_run", description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    seen: dict[int, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), epochs=-(-steps // STEPS_PER_EPOCH))
        options = (
            "--config.training.log_every_steps=10",
            "--config.training.checkpoint_every_steps=50",
            "--config.training.eval_every_epochs=10",
        )
        started = time.monotonic()
        process = runs.start(Path(folder) / "run", *options)
        metrics = Path(folder) / "run" / "metrics.jsonl"
        with ended_anyway(process):
            for step in range(EVERY_STEPS, steps + 1, EVERY_STEPS):
                if not process.until(lambda: _last_step(metrics) >= step, every=0.01):  # noqa: B023
                    break
                if process.process.poll() is not None:
                    break
                seen[step] = _measure(process.process.pid)
                megabytes, files = seen[step]
                print(
                    f"step {step:5,}  {megabytes:7.1f} MB  {files:3} open files  "
                    f"{time.monotonic() - started:6.1f} s",
                    flush=True,
                )
            ended = process.end()
    if ended.code:
        raise AssertionError(f"exit code {ended.code}: {ended.output}\n{ended.errors}")
    settled = {step: values for step, values in seen.items() if step >= SETTLED_AT_STEP}
    first, last = settled[min(settled)], settled[max(settled)]
    growth, more_files = last[0] - first[0], last[1] - first[1]
    print(
        f"from step {min(settled):,} to {max(settled):,}: {growth:+.1f} MB (at most "
        f"{MAX_GROWTH_MB}), {more_files:+} open files (at most {MAX_MORE_FILES})"
    )
    if growth > MAX_GROWTH_MB or more_files > MAX_MORE_FILES:
        raise SystemExit("memory or open files grow")


def _last_step(metrics: Path) -> int:
    if not metrics.exists():
        return 0
    steps = re.findall(rb'^\{"step": (\d+),', metrics.read_bytes(), re.MULTILINE)
    return int(steps[-1]) if steps else 0


def _measure(pid: int) -> tuple[float, int]:
    """Return a process's resident memory in MB and how many files it has open."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert resident is not None
    return int(resident[1]) * 1024 / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


if __name__ == "__main__":
    main()
