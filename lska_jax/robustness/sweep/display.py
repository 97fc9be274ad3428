"""What a person sees of a sweep: a line for each cell that is done, and one that moves below."""

import time
from collections.abc import Callable
from typing import TextIO

from lska_jax.robustness.cells import Cell, CellResult
from lska_jax.running.live_line import LiveLine
from lska_jax.training.reporting import format_duration


class SweepDisplay:
    """Shows cells done and time left; a context manager that leaves a clean terminal.

    Args:
      total: cells of the whole sweep.
      done: of them, cells that an earlier call measured.
      is_main: False shows nothing: for processes beside the first.
      stream: where to write; standard output where None.
      clock: seconds that only grow; for tests.
    """

    def __init__(
        self,
        total: int,
        done: int,
        *,
        is_main: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total = total
        self._done = done
        self._is_main = is_main
        self._line = LiveLine(stream)
        self._clock = clock
        self._started = clock()
        self._finished_here = 0
        self._cell = ""
        self._reasons: set[str] = set()
        if done:
            self.message(f"{done} of {total} cells are measured already; going on.")

    def begin(self, cell: Cell) -> None:
        """Say which cell is being measured."""
        self._cell = str(cell)
        self.advance(0.0)

    def advance(self, fraction: float) -> None:
        """Show that a fraction in [0, 1] of the present cell is done."""
        if not self._is_main:
            return
        self._line.update(
            f"cell {self._done + 1}/{self._total} | {self._cell} {min(fraction, 1.0):4.0%}"
            f"{self._time_left(min(fraction, 1.0))}"
        )

    def result(self, result: CellResult) -> None:
        """Write one model's result in the present cell."""
        shown = " | ".join(
            f"{name} {score.value:.4f}"
            for name, score in list(result.scores.items())[:3]
            if score.value is not None
        )
        broken = f" | {result.num_broken} unreadable" if result.num_broken else ""
        self.message(
            f"{result.cell} | {result.model} | {shown} | {result.num_images:,} images{broken} | "
            f"{result.seconds:.1f} s"
        )

    def hole(self, cell: Cell, reason: str) -> None:
        """Write that a cell has no images; once, however many cells have the same reason."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            self.message(f"{cell} | missing: {reason}")

    def end(self) -> None:
        """Count the present cell as done."""
        self._done += 1
        self._finished_here += 1

    def message(self, text: str) -> None:
        """Write a line that stays."""
        if self._is_main:
            self._line.print(text)

    def __enter__(self) -> "SweepDisplay":
        """Return the display."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the moving line away."""
        self._line.clear()

    def _time_left(self, fraction: float) -> str:
        finished = self._finished_here + fraction
        if finished < 0.05:
            return ""
        seconds = (self._clock() - self._started) / finished
        left = seconds * (self._total - self._done - fraction)
        return f" | {format_duration(max(left, 0.0))} left"
