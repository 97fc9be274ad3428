"""What a run tells a person while it goes on, and what it leaves behind.

On a terminal: a live line with epoch, step, images/s, loss, learning rate and time left. In the
run's folder: `log.txt` with plain lines and times, `metrics.jsonl`, and TensorBoard files.
Everything here works on numbers that are already on the host; nothing waits for a device.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import TextIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat, TextIO

import numpy as np
from PIL import Image

from lska_jax.running.live_line import LiveLine, plain_text
from lska_jax.running.whole_file import whole_file
from lska_jax.training.metric_writers import JsonLines, MetricWriter, MLflow, TensorBoard, WandB

WRITERS = ("jsonl", "tensorboard", "wandb", "mlflow")

_SECONDS_BETWEEN_PLAIN_LINES = 10.0
# The learning rate of a record is the last one used; a mean over steps would be none of them.
_LAST_VALUE_COUNTS = frozenset({"learning_rate"})


class Progress:
    """Counts what a long phase has done; made by `Reporter.progress`."""

    def __init__(self, show: Callable[[str], None], *, description: str, total: int | None) -> None:
        self._show = show
        self._description = description
        self._total = total
        self._started = time.monotonic()
        self.done = 0

    def advance(self, count: int = 1) -> None:
        """Say that `count` more of the total are done."""
        self.done += count
        self.refresh()

    def refresh(self) -> None:
        """Show how far the phase is."""
        seconds = time.monotonic() - self._started
        if self._total is None:
            self._show(f"{self._description} | {seconds:.0f} s")
            return
        text = f"{self._description} | {self.done:,}/{self._total:,}"
        if 0 < self.done <= self._total:
            left = seconds / self.done * (self._total - self.done)
            text += f" | {format_duration(left)} left"
        self._show(text)


class Reporter:
    """Report one run. Every process makes the same calls; only the main one writes.

    Report a step, and its evaluation, before saving it: a run killed after the save and before
    the report would resume beyond a line that was never written.

    Args:
      workdir: the run's output folder; made if missing.
      total_steps: at which step the run ends.
      steps_per_epoch: how many steps see the training set once.
      global_batch_size: images a step, over all devices.
      start_step: where the run goes on; records of later steps are removed.
      is_evaluation_due: whether the evaluation of `start_step` comes again; its record is
        removed too.
      open_steps: how many steps before `start_step` no record has yet; None: unknown.
      is_main: whether this process writes.
      log_every_steps: how many steps make one record.
      writers: which of `WRITERS` keep the numbers.
      run_name: what services call the run.
      config: the resolved configuration, for services.
      stream: where the live line and messages go; standard output where None.
      clock: seconds that only grow; for tests.

    Attributes:
      workdir: the run's output folder.

    Raises:
      ValueError: a number out of range, an unknown writer, or one whose package is missing.
      OSError: the folder cannot be written.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        total_steps: int,
        steps_per_epoch: int,
        global_batch_size: int,
        start_step: int = 0,
        is_evaluation_due: bool = False,
        open_steps: int | None = None,
        is_main: bool = True,
        log_every_steps: int = 50,
        writers: Sequence[str] = ("jsonl", "tensorboard"),
        run_name: str,
        config: Mapping[str, Any],
        stream: TextIO | TextIOBase | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in {
            "steps_per_epoch": steps_per_epoch,
            "global_batch_size": global_batch_size,
            "log_every_steps": log_every_steps,
        }.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        unknown = [name for name in writers if name not in WRITERS]
        if unknown:
            raise ValueError(f"Unknown metric writers {unknown}; allowed: {', '.join(WRITERS)}.")
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._global_batch_size = global_batch_size
        self._log_every_steps = log_every_steps
        self._is_main = is_main
        self._clock = clock
        self._step = start_step
        self._rate: float | None = None
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._first: tuple[int, float] | None = None
        self._window: tuple[int, float] | None = None
        self._next_plain_line = float("-inf")
        self._line = LiveLine(stream, clock=clock)
        self._log_lock = threading.Lock()
        self._writers: dict[str, MetricWriter] = {}
        self.workdir = workdir = Path(workdir)
        if not is_main:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        remarks: list[str] = []
        for name in writers:
            if name == "jsonl":
                lines = JsonLines(
                    workdir / "metrics.jsonl",
                    start_step=start_step,
                    is_evaluation_due=is_evaluation_due,
                    open_steps=open_steps,
                )
                self._writers[name], remarks = lines, lines.remarks
            else:
                self._writers[name] = _make_service(name, workdir, start_step, run_name, config)
        # Names of files need not be text; what is none is written escaped.
        log = workdir / "log.txt"
        self._log = log.open("a", encoding="utf-8", errors="backslashreplace")
        for remark in remarks:
            self.message(remark)

    def train(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Report one finished step.

        Args:
          step: how many steps are done, counted from 1.
          values: host numbers such as `loss` and `learning_rate`; a record has their means
            over its steps, and the last learning rate.
        """
        if not self._is_main:
            return
        now = self._clock()
        self._step = step
        for name, value in values.items():
            kept = 0.0 if name in _LAST_VALUE_COUNTS else self._sums.get(name, 0.0)
            self._sums[name] = kept + float(value)
            self._counts[name] = 1 if name in _LAST_VALUE_COUNTS else self._counts.get(name, 0) + 1
        if self._first is None or self._window is None:
            # The first step ends with its compilation behind it: the clocks start here.
            self._first = self._window = (step, now)
        means = {name: self._sums[name] / self._counts[name] for name in self._sums}
        is_record = step % self._log_every_steps == 0 or step >= self._total_steps
        if is_record or self._rate is None:
            self._rate = self._measure_rate(step, now)
        text = self._describe(step, means, now)
        self._line.update(text)
        if not is_record:
            return
        record = {f"train/{name}": value for name, value in means.items()}
        if self._rate is not None:
            record["train/images_per_second"] = self._rate
        self._write(step, record)
        if now >= self._next_plain_line or step >= self._total_steps:
            self._next_plain_line = now + _SECONDS_BETWEEN_PLAIN_LINES
            self._keep_in_log(text)
            if not self._line.is_live:
                self._line.print(text)
        self._sums, self._counts = {}, {}
        self._window = (step, now)

    def evaluation(
        self,
        step: int,
        values: Mapping[str, SupportsFloat],
        *,
        shown: str,
        evaluator: str = "eval",
    ) -> None:
        """Report an evaluation: one record and one line.

        Args:
          step: how many steps of training the evaluated state has.
          values: full names and numbers, such as `{"eval/top1": 0.97}`.
          shown: the numbers as a person reads them.
          evaluator: whose they are.
        """
        if not self._is_main:
            return
        numbers = {name: float(value) for name, value in values.items()}
        self._write(step, numbers)
        which = "" if evaluator == "eval" else f" {evaluator}"
        when = f"after step {step:,} (epoch {self._epoch(step):.2f})"
        self.message(f"evaluation{which} {when}: {shown}")

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Keep the pictures of an evaluation: with the writers, and the latest ones as files.

        Args:
          step: how many steps of training the evaluated state has.
          pictures: (H, W, 3) uint8 by name, such as `eval/predictions`.
        """
        if not self._is_main:
            return
        for name, pixels in pictures.items():
            self._keep_picture(step, name, pixels)

    def open_record(self) -> dict[str, dict[str, float]]:
        """Return what the record in the making has so far, for a checkpoint to keep."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def continue_record(self, record: Mapping[str, Mapping[str, float]]) -> None:
        """Go on with the record that a checkpoint has kept, from `open_record`."""
        # A checkpoint keeps numbers that are not finite as None.
        self._sums = {
            name: math.nan if value is None else value for name, value in record["sums"].items()
        }
        self._counts = {name: int(count) for name, count in record["counts"].items()}

    def message(self, text: str) -> None:
        """Write a line to the terminal, above the live line, and to the log file."""
        if not self._is_main:
            return
        self._line.print(text)
        self._keep_in_log(text)

    def note(self, text: str) -> None:
        """Write to the log file alone what the terminal has had."""
        if self._is_main:
            self._keep_in_log(f"Note: {text}")

    @contextmanager
    def progress(self, description: str, total: int | None = None) -> Iterator[Progress]:
        """Show how far a long phase is; its time does not count as training.

        Args:
          description: what is going on, such as "evaluating".
          total: how many times the phase will `advance`; None shows the seconds it takes.

        Yields:
          A `Progress` to advance.
        """
        show = self._line.update if self._is_main else lambda text: None
        progress = Progress(show, description=description, total=total)
        started = self._clock()
        if self._is_main:
            self._line.clear()
            if not self._line.is_live:
                self._line.print(f"{description} ...")
        finished = threading.Event()
        ticker = threading.Thread(target=_tick, args=(progress, finished), daemon=True)
        ticker.start()
        try:
            yield progress
        finally:
            finished.set()
            ticker.join()
            if self._is_main:
                self._line.clear()
                seconds = self._clock() - started
                self._keep_in_log(f"{description}: {seconds:.1f} s")
                if self._window is not None:
                    self._window = (self._window[0], self._window[1] + seconds)

    def close(self) -> None:
        """Close every file and service."""
        if not self._is_main:
            return
        self._line.clear()
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
        with self._log_lock:
            self._log.close()
        self._is_main = False

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _epoch(self, step: int) -> float:
        return step / self._steps_per_epoch

    def _measure_rate(self, step: int, now: float) -> float | None:
        """Return images a second over the window that ends now; None over no time at all."""
        if self._window is None or step <= self._window[0] or now <= self._window[1]:
            return self._rate
        steps, seconds = step - self._window[0], now - self._window[1]
        return steps * self._global_batch_size / seconds

    def _describe(self, step: int, means: Mapping[str, float], now: float) -> str:
        epochs = math.ceil(self._total_steps / self._steps_per_epoch)
        epoch = min(math.ceil(step / self._steps_per_epoch), epochs)
        parts = [f"epoch {epoch}/{epochs}", f"step {step:,}/{self._total_steps:,}"]
        if self._rate is not None:
            parts.append(f"{self._rate:,.{0 if self._rate >= 100 else 1}f} images/s")
        for name, value in means.items():
            is_rate = name == "learning_rate"
            parts.append(f"lr {value:.3g}" if is_rate else f"{name} {value:.4g}")
        if self._first is not None and step > self._first[0]:
            # Evaluations and saves will come again, so their time belongs into the estimate.
            seconds_per_step = (now - self._first[1]) / (step - self._first[0])
            left = seconds_per_step * (self._total_steps - step)
            parts.append(f"{format_duration(left)} left")
        return " | ".join(parts)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        record = {"epoch": round(self._epoch(step), 6), "time": round(time.time(), 3), **values}
        self._tell_writers(lambda writer: writer.write(step, record))

    def _keep_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        file = self.workdir / "pictures" / f"{name.replace('/', '_')}.png"
        file.parent.mkdir(exist_ok=True)
        with whole_file(file) as beside:
            Image.fromarray(pixels).save(beside)
        self._tell_writers(lambda writer: writer.write_picture(step, name, pixels))

    def _tell_writers(self, tell: Callable[[MetricWriter], None]) -> None:
        for name, writer in list(self._writers.items()):
            try:
                tell(writer)
            except Exception as error:
                if name == "jsonl":
                    raise
                # A service that is down must not cost days of training.
                del self._writers[name]
                with suppress(Exception):
                    writer.close()
                self.message(f"The metric writer {name} failed and is off from here: {error!r}")

    def _keep_in_log(self, text: str) -> None:
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        lines = plain_text(text).splitlines() or [""]
        # The watchdog and a finished save write from their own threads.
        with self._log_lock:
            if not self._log.closed:
                self._log.write("".join(f"{stamp} {line}\n" for line in lines))
                self._log.flush()


def format_duration(seconds: float) -> str:
    """Return seconds as `h:mm:ss`, with days before it where there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return f"{days} d {clock}" if days else clock


def _tick(progress: Progress, finished: threading.Event) -> None:
    """Keep the line of a phase alive while it is busy inside one long call."""
    while not finished.wait(1.0):
        progress.refresh()


def _make_service(
    name: str, workdir: Path, start_step: int, run_name: str, config: Mapping[str, Any]
) -> MetricWriter:
    if name == "tensorboard":
        return TensorBoard(workdir / "tensorboard", start_step=start_step)
    if name == "wandb":
        return WandB(workdir, run_name=run_name, config=config)
    return MLflow(workdir, run_name=run_name, config=config)
