"""Where a run's numbers and pictures go: JSON lines, TensorBoard, and two services as extras.

A writer takes a step and a mapping of names to numbers. The JSON lines are the record that
everything else can be made from again; they are strict JSON, one object a line.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lska_jax.running.whole_file import write_whole


@runtime_checkable
class MetricWriter(Protocol):
    """Something that keeps numbers by step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Keep `values` as those of `step`."""

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Keep a picture (H, W, 3) uint8 as that of `step`."""

    def close(self) -> None:
        """Bring everything to where it belongs and let go of it."""


class JsonLines:
    """Write `{"step": ..., name: value, ...}` to one line of a file; NaN and infinity as null.

    Every line is flushed as it is written, so a killed run loses none, and a later start
    removes what a kill left half-written.

    Args:
      path: the file, continued if it is there.
      start_step: where the run goes on. Lines of later steps are removed, since the run
        will write them again, and so is a torn last line; a run that starts at 0 removes
        all lines.
      is_evaluation_due: whether the evaluations of `start_step` come again; their lines are
        removed too.
      open_steps: how many steps before `start_step` have no line yet; None where that is unknown.

    Attributes:
      remarks: what is wrong with the file that is continued, a sentence each.

    Raises:
      OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start_step: int = 0,
        is_evaluation_due: bool = False,
        open_steps: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        redone = start_step if is_evaluation_due else -1
        recorded = 0 if open_steps is None else start_step - open_steps
        self.remarks = _keep_lines_until(self._path, start_step, redone=redone, recorded=recorded)
        self._stream = self._path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        line = {"step": step, **{name: _finite_or_none(value) for name, value in values.items()}}
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Leave pictures to others: they are files beside this one."""

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class TensorBoard:
    """Write scalars for TensorBoard, with tensorboardX.

    Args:
      directory: where the event files go.
      start_step: where the run goes on; TensorBoard forgets what was written beyond it.
    """

    def __init__(self, directory: str | Path, *, start_step: int = 0) -> None:
        from tensorboardX import SummaryWriter

        # The purged step itself is dropped as well, hence the one beyond the last kept.
        purge_step = start_step + 1 if start_step else 0
        self._writer = SummaryWriter(str(directory), purge_step=purge_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write each number as a scalar; the wall time comes from `time` where it is given."""
        wall_time = values.get("time")
        for name, value in values.items():
            if name != "time":
                self._writer.add_scalar(name, value, step, walltime=wall_time)
        self._writer.flush()

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Write a picture under Images."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandB:
    """Send numbers to Weights & Biases; needs `pip install lska-jax[wandb]`.

    Args:
      directory: the run's output folder. The service's id of the run is kept there, so that
        a resumed run continues its own curves.
      run_name: the name people see.
      config: the resolved configuration.

    Raises:
      ValueError: the package is not installed.
    """

    def __init__(self, directory: str | Path, *, run_name: str, config: Mapping[str, Any]) -> None:
        wandb = _import_extra("wandb")
        identity = Path(directory) / "wandb_run_id.txt"
        known = identity.read_text(encoding="utf-8").strip() if identity.exists() else None
        self._run = wandb.init(
            project="lska-jax",
            name=run_name,
            config=dict(config),
            dir=str(directory),
            id=known,
            resume="allow",
        )
        identity.write_text(self._run.id, encoding="utf-8")
        # The service drops numbers of a step it has passed, as a resumed run's may be;
        # an axis of our own has no such order.
        self._run.define_metric("global_step")
        self._run.define_metric("*", step_metric="global_step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send one row."""
        self._run.log({**values, "global_step": step})

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Send one picture."""
        self._run.log({name: _import_extra("wandb").Image(pixels), "global_step": step})

    def close(self) -> None:
        """Finish the run on the service."""
        self._run.finish()


class MLflow:
    """Send numbers to the MLflow server of `MLFLOW_TRACKING_URI`; `pip install lska-jax[mlflow]`.

    Args:
      directory: the run's output folder. The server's id of the run is kept there, so that a
        resumed run continues its own curves.
      run_name: the name people see.
      config: the resolved configuration; nested names are joined with dots.

    Raises:
      ValueError: the package is not installed.
    """

    def __init__(self, directory: str | Path, *, run_name: str, config: Mapping[str, Any]) -> None:
        self._mlflow = _import_extra("mlflow")
        identity = Path(directory) / "mlflow_run_id.txt"
        if identity.exists():
            self._mlflow.start_run(run_id=identity.read_text(encoding="utf-8").strip())
        else:
            run = self._mlflow.start_run(run_name=run_name)
            identity.write_text(run.info.run_id, encoding="utf-8")
            self._mlflow.log_params(flatten(config))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send one row."""
        self._mlflow.log_metrics({k: v for k, v in values.items() if k != "time"}, step=step)

    def write_picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Send one picture."""
        self._mlflow.log_image(pixels, key=name, step=step)

    def close(self) -> None:
        """End the run on the server."""
        self._mlflow.end_run()


def _keep_lines_until(path: Path, step: int, *, redone: int, recorded: int) -> list[str]:
    """Rewrite `path` without the lines after `step` and without a torn one, atomically.

    Args:
      path: of the JSON lines.
      step: where the run goes on.
      redone: the step whose evaluations come again.
      recorded: the step of the last line of training that was written before.

    Returns:
      What is missing or damaged, a sentence each. Damaged lines are kept in a file beside.
    """
    if not path.exists():
        return [f"{path} is missing: records up to step {recorded} are lost."] if recorded else []
    content = path.read_bytes()
    # What follows the last line's end was torn by a kill.
    lines = content.splitlines(keepends=True) if step > 0 else []
    lines = [line for line in lines if line.endswith(b"\n")]
    records = {line: _read_record(line) for line in lines}
    damaged = [line for line in lines if records[line] is None]
    kept = [line for line in lines if _is_kept(records[line], step, redone=redone)]
    remarks = []
    if damaged:
        aside = path.with_suffix(f".damaged{path.suffix}")
        write_whole(aside, b"".join(damaged))
        remarks.append(f"{path} has {len(damaged)} damaged lines; they were moved to {aside}.")
    last = max((_step_of_training(records[line]) for line in kept), default=0)
    if last < recorded:
        remarks.append(f"{path} lacks the records of training from step {last} to {recorded}.")
    if b"".join(kept) != content:
        write_whole(path, b"".join(kept))
    return remarks


def _read_record(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None where it is damaged."""
    try:
        record = json.loads(line)
        is_record = isinstance(record, dict) and type(record["step"]) is int
    except (ValueError, KeyError, RecursionError):
        return None
    return record if is_record else None


def _is_kept(record: dict[str, Any] | None, step: int, *, redone: int) -> bool:
    if record is None:
        return False
    is_redone = record["step"] == redone and not _step_of_training(record)
    return record["step"] <= step and not is_redone


def _step_of_training(record: dict[str, Any] | None) -> int:
    """Return the step of a record of training; 0 for another."""
    is_training = record is not None and any(name.startswith("train/") for name in record)
    return record["step"] if record is not None and is_training else 0


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config as one dictionary, its names joined with dots."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _import_extra(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"The metric writer {name!r} needs the package {name}, which cannot be imported "
            f"({error}); install it with: pip install lska-jax[{name}]"
        ) from error
