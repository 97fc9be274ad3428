"""Trainings of a minute or so, run as a person types them: how long each step takes, what it gives.

Every command is a process of its own. Rows are written as they come, and those that are there are
not run again: a benchmark that was stopped goes on where it was.
"""

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results import Row

# Of Student's distribution, 97.5 %, by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
_READY = re.compile(r"^Ready after ([\d.]+) s \((.*)\)\.$", re.MULTILINE)
_SHOWN_ON_FAILURE = 3_000


class Done(NamedTuple):
    """What a command took.

    Attributes:
      seconds: from start to end.
      core_seconds: that it and its children computed for.
      output: of it.
    """

    seconds: float
    core_seconds: float
    output: str


def run_command(*words: str, cwd: Path) -> Done:
    """Run ``lska-jax WORDS``.

    Args:
      *words: of the command line.
      cwd: where; compiled programs are kept there too, as a second start finds them.

    Raises:
      RuntimeError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    root = str(Path(__file__).parents[1])
    environment |= {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(cwd / "compiled")
    started, before = time.monotonic(), _core_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "lska_jax", *words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"lska-jax {' '.join(words)}:\n{done.stdout[-_SHOWN_ON_FAILURE:]}")
    return Done(time.monotonic() - started, _core_seconds() - before, done.stdout)


def train(*words: str, workdir: str, cwd: Path) -> Row:
    """Run ``lska-jax train``, and return its last evaluation and what it took.

    Args:
      *words: of the command line.
      workdir: of the run, below ``cwd``.
      cwd: as for ``run_command``.
    """
    done = run_command("train", *words, "--workdir", workdir, cwd=cwd)
    lines = (cwd / workdir / "metrics.jsonl").read_text().splitlines()
    (*_, last) = (values for line in lines if (values := _of_evaluation(json.loads(line))))
    row: Row = {"seconds": done.seconds, "core_seconds": done.core_seconds}
    if "top1" in last:  # of a run that paints there is none
        row["top1"] = last["top1"]
    if ready := _READY.search(done.output):
        row["ready_seconds"] = float(ready[1])
        row["ready"] = ready[2]
    return row


def _of_evaluation(record: Mapping[str, Any]) -> Row:
    begin = "eval/"
    return {
        name.removeprefix(begin): value for name, value in record.items() if name.startswith(begin)
    }


class Rows:
    """The rows of a benchmark's file, by what tells them apart.

    Args:
      rows: of the file, where there is one.
      keys: names of the values that tell a row apart.
      write: called with all rows after each new one.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        keys: Sequence[str],
        write: Callable[[Sequence[Row]], Any],
    ):
        self._keys, self._write = keys, write
        self._rows = {self._key(row): row for row in rows}

    def add(self, identity: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> Row:
        """Return a row; it is measured only where it is not there yet."""
        key = self._key(identity)
        if key not in self._rows:
            self._rows[key] = {**identity, **measure()}
            self._write(self.all)
        return self._rows[key]

    def has(self, identity: Mapping[str, Any]) -> bool:
        """Tell whether a row is there."""
        return self._key(identity) in self._rows

    @property
    def all(self) -> list[Row]:
        """The rows in the order in which they were measured."""
        return list(self._rows.values())

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(name) for name in self._keys)


class Interval(NamedTuple):
    """A mean with the half width of its 95 % interval, by Student's distribution; None of one."""

    mean: float
    half_width: float | None

    def percent(self, *, is_difference: bool = False) -> str:
        """Return it as a table shows it."""
        sign = "+" if is_difference else ""
        mean = f"{100 * self.mean:{sign}.1f}"
        return mean if self.half_width is None else f"{mean} ± {100 * self.half_width:.1f}"


def interval_of(values: Sequence[float]) -> Interval:
    """Return the mean over seeds and its 95 % interval."""
    if len(values) < 2:
        return Interval(values[0], None)
    spread = statistics.stdev(values) / len(values) ** 0.5
    return Interval(statistics.mean(values), _STUDENT[len(values) - 1] * spread)


def difference_of(rows: Sequence[Row], others: Sequence[Row]) -> Interval:
    """Return by how much the first are better, seed by seed."""
    found = {row["seed"]: row["top1"] for row in others}
    return interval_of([row["top1"] - found[row["seed"]] for row in rows if row["seed"] in found])


def _core_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
