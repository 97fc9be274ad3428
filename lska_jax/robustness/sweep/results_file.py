"""The one file that a sweep appends to: a header, then one JSON line for each cell and model.

    {"format": "lska_jax robustness results", "version": 1, "settings": {...}}
    {"model": {...}}                                  once for each model
    {"plan": [["imagenet_c", "fog", 3], ...]}         the cells that were asked for
    {"result": {"model": ..., "cell": [...], "scores": {...}, ...}}
    {"hole": {"cell": [...], "reason": ...}}          a result that comes later fills it

A line counts once its newline is there: what a killed process left of one is cut off at the next
start, so nothing done is lost and nothing is counted twice.
"""

import base64
import dataclasses
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lska_jax.robustness.cells import Cell, CellResult, Hole, ModelStamp, Score

FORMAT = "lska_jax robustness results"
VERSION = 1


@dataclasses.dataclass
class Results:
    """What a results file holds.

    Attributes:
      settings: what the sweep was asked for; see ``lska_jax.robustness.sweep.run``.
      plan: the cells that were asked for, in order.
      models: by name, in the order of the file.
      cells: results by (model's name, cell).
      holes: reasons by cell; none for a cell that has a result of every model.
    """

    settings: dict[str, Any]
    plan: list[Cell] = dataclasses.field(default_factory=list)
    models: dict[str, ModelStamp] = dataclasses.field(default_factory=dict)
    cells: dict[tuple[str, Cell], CellResult] = dataclasses.field(default_factory=dict)
    holes: dict[Cell, str] = dataclasses.field(default_factory=dict)


class ResultsFile:
    """A results file that is open for appending; a context manager.

    Attributes:
      results: all that the file holds, kept up to date.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any], *, is_writer: bool = True):
        """Open, or begin, a results file.

        Args:
          path: of the file; its folder is made.
          settings: JSON values; those of the file must be the same.
          is_writer: False keeps results in memory only: for processes beside the one that writes.

        Raises:
          ValueError: the file is none, of another version, damaged, or of other settings.
        """
        self.path = path = Path(path)
        self._file: TextIO | None = None
        wanted = json.loads(json.dumps(dict(settings)))
        if path.exists() and not _is_unfinished_header(path):
            self.results = load_results(path)
            _check_same_settings(path, self.results.settings, wanted)
        else:
            self.results = Results(wanted)
        if is_writer:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_unfinished_line(path)
            self._file = path.open("a", encoding="utf-8")
            if not path.stat().st_size:
                self._write({"format": FORMAT, "version": VERSION, "settings": wanted})

    def add_plan(self, cells: Sequence[Cell]) -> None:
        """Note which cells are asked for; those that the file plans already are left out."""
        new = [cell for cell in cells if cell not in set(self.results.plan)]
        if new:
            self.results.plan += new
            self._write({"plan": [list(cell) for cell in new]})

    def add_model(self, stamp: ModelStamp) -> None:
        """Note a model, unless the file has it already.

        Raises:
          ValueError: the file has another model of this name.
        """
        known = self.results.models.get(stamp.name)
        if known is not None:
            if (known.sha256, known.preprocessing) != (stamp.sha256, stamp.preprocessing):
                raise ValueError(
                    f"{self.path} holds results of another model named {stamp.name!r}: weights "
                    f"{known.sha256[:12]}, {known.preprocessing}; this one has "
                    f"{stamp.sha256[:12]}, {stamp.preprocessing}. Give this model another name "
                    f"(--model NAME={stamp.name}...) or the results another --out."
                )
            return
        self.results.models[stamp.name] = stamp
        self._write({"model": dataclasses.asdict(stamp)})

    def add_result(self, result: CellResult) -> None:
        """Append one result; it is on the disk when this returns."""
        self.results.cells[result.model, result.cell] = result
        self.results.holes.pop(result.cell, None)
        self._write({"result": _encode_result(result)})

    def add_hole(self, hole: Hole) -> None:
        """Append a hole, unless the file says the same already."""
        if self.results.holes.get(hole.cell) != hole.reason:
            self.results.holes[hole.cell] = hole.reason
            self._write({"hole": {"cell": list(hole.cell), "reason": hole.reason}})

    def close(self) -> None:
        """Close the file; results stay readable."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> "ResultsFile":
        """Return the file itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def load_results(path: str | Path) -> Results:
    """Read a results file, also while a sweep appends to it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no results file, of another version, or damaged; says which line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no results file {path}; make one with python eval_robustness.py."
        )
    # The last line may be one that is being written, or was when the process was killed.
    lines = path.read_bytes().split(b"\n")[:-1]
    if not lines:
        raise ValueError(f"{path} is no results file: it holds no complete line.")
    results = Results(_read_header(path, lines[0]))
    for number, line in enumerate(lines[1:], start=2):
        try:
            _add_line(results, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            raise ValueError(
                f"{path}, line {number}, is damaged ({type(error).__name__}: {error}). Remove that "
                "line: its cell is then measured again, the others are kept."
            ) from error
    return results


def _read_header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
        is_ours = header["format"] == FORMAT and isinstance(header["settings"], dict)
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise ValueError(f"{path} is no results file of lska_jax; choose another --out.")
    if header.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {header.get('version')!r} of the results format; this lska_jax "
            f"reads and writes {VERSION}. Choose another --out."
        )
    return header["settings"]


def _add_line(results: Results, line: Mapping[str, Any]) -> None:
    ((kind, content),) = line.items()
    if kind == "plan":
        results.plan += [Cell(*cell) for cell in content]
    elif kind == "model":
        results.models[content["name"]] = ModelStamp(**content)
    elif kind == "hole":
        results.holes[Cell(*content["cell"])] = content["reason"]
    elif kind == "result":
        result = _decode_result(content)
        results.cells[result.model, result.cell] = result
        results.holes.pop(result.cell, None)
    else:
        raise ValueError(f"unknown kind of line {kind!r}")


def _check_same_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    different = [
        f"{name}: the file has {found.get(name)!r}, asked for {wanted.get(name)!r}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if different:
        raise ValueError(
            f"{path} holds results of other settings:\n  "
            + "\n  ".join(different)
            + "\nAsk for the same, or choose another --out."
        )


def _is_unfinished_header(path: Path) -> bool:
    """Tell whether a file is empty, or a process was killed while it wrote its first line."""
    start = json.dumps({"format": FORMAT})[:-1].encode()
    with path.open("rb") as file:
        content = file.read(len(start))
        return b"\n" not in content + file.readline() and start.startswith(content)


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)


def _encode_result(result: CellResult) -> dict[str, Any]:
    record = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    record["cell"] = list(result.cell)
    record["scores"] = {name: list(score) for name, score in result.scores.items()}
    record["outcomes"] = {name: _encode_array(array) for name, array in result.outcomes.items()}
    return record


def _decode_result(record: Mapping[str, Any]) -> CellResult:
    return CellResult(
        **{
            **record,
            "cell": Cell(*record["cell"]),
            "scores": {name: Score(*score) for name, score in record["scores"].items()},
            "outcomes": {name: _decode_array(a) for name, a in record["outcomes"].items()},
        }
    )


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    content = np.packbits(array).tobytes() if array.dtype == np.bool_ else array.tobytes()
    encoded = base64.b85encode(zlib.compress(content)).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "zlib_b85": encoded}


def _decode_array(record: Mapping[str, Any]) -> np.ndarray:
    content = zlib.decompress(base64.b85decode(record["zlib_b85"]))
    dtype, shape = np.dtype(record["dtype"]), tuple(record["shape"])
    if dtype == np.bool_:
        bits = np.frombuffer(content, np.uint8)
        return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)
