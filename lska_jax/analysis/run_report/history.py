"""What a run's folder says of its training: numbers by step, config, environment."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

METRICS = "metrics.jsonl"


class Curve(NamedTuple):
    """One number over the steps.

    Attributes:
      steps: (N,), ascending.
      epochs: (N,) of the same records.
      values: (N,), NaN where the run had no finite one.
    """

    steps: Int[np.ndarray, " records"]
    epochs: Float[np.ndarray, " records"]
    values: Float[np.ndarray, " records"]


class History(NamedTuple):
    """A run as its folder tells it.

    Attributes:
      folder: of the run.
      curves: numbers by their name in ``metrics.jsonl``: "train/loss", "eval/top1".
      config: as it was trained, nested; empty where the folder has none.
      environment: as the last start found it; empty for runs of older versions.
      damaged: how many lines of the metrics could not be read.
    """

    folder: Path
    curves: Mapping[str, Curve]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    damaged: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name or self.folder.resolve().name


def read_history(folder: str | Path) -> History:
    """Read a run's folder; lines of the metrics that are damaged are counted and left out.

    Raises:
      FileNotFoundError: the folder has no metrics, so that it is no run.
    """
    folder = Path(folder)
    path = folder / METRICS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no run: it has no {METRICS}. Give the --workdir of a training, or a "
            "results.jsonl of robustness."
        )
    records, damaged = [], 0
    for line in path.read_bytes().splitlines():
        record = _record(line)
        damaged += record is None
        records += [] if record is None else [record]
    names = dict.fromkeys(
        name for record in records for name in record if name not in ("step", "epoch", "time")
    )
    curves = {name: _curve(records, name) for name in names}
    return History(
        folder, curves, _json(folder / "config.json"), _json(folder / "environment.json"), damaged
    )


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        is_record = isinstance(record, dict) and type(record["step"]) is int
        is_record = is_record and 0 <= record["step"] < 2**31
    except (ValueError, KeyError, RecursionError):
        return None
    return record if is_record else None


def _curve(records: list[dict[str, Any]], name: str) -> Curve:
    # A resumed run writes a step's line again only after it has removed the first.
    found = sorted((r for r in records if name in r), key=lambda record: record["step"])
    return Curve(
        np.array([record["step"] for record in found], np.int64),
        np.array([_number(record.get("epoch")) for record in found], np.float64),
        np.array([_number(record[name]) for record in found], np.float64),
    )


def _number(value: object) -> float:
    is_number = isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
    return float(value) if is_number else np.nan  # type: ignore[arg-type]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
