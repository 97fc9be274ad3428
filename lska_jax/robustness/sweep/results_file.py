"""The one file that a sweep appends to: a header, then one JSON line for each cell and model.

    {"format": "lska_jax robustness results", "version": 2, "settings": {...}}
    {"model": {...}}                                  once for each model
    {"plan": [["imagenet_c", "fog", 3], ...]}         the cells that were asked for
    {"result": {"model": ..., "cell": [...], "scores": {...}, ...}}
    {"hole": {"cell": [...], "reason": ...}}          a result that comes later fills it

Each line ends with its sum, see ``results_lines``; files of version 1 have none and are read still.
A line counts once its newline is there: what a killed process left of one is cut off at the next
start, so nothing done is lost and nothing is counted twice. One process at a time appends.
"""

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lska_jax.robustness.cells import Cell, CellResult, Hole, ModelStamp
from lska_jax.robustness.sweep.results_lines import (
    DAMAGE,
    decode_line,
    encode_line,
    encode_result,
    read_object,
)
from lska_jax.running.folder_lock import InUse, is_in_place, lock_file

FORMAT = "lska_jax robustness results"
VERSION = 2
_VERSION_WITHOUT_SUMS = 1
_HEADER_START = json.dumps({"format": FORMAT})[:-1].encode()


class ResultsNotWritten(OSError):
    """A result could not be added to the file; all before it are there."""


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
          ValueError: the file is none, of another version, damaged, of other settings, or another
            sweep appends to it.
        """
        self.path = path = Path(path)
        self._file: TextIO | None = None
        wanted = json.loads(json.dumps(dict(settings)))
        if is_writer:
            # Before it is read: what another sweep adds would be measured twice.
            self._file = _open_alone(path)
        try:
            if path.exists() and not _is_unfinished_header(path):
                self.results = load_results(path)
                _check_same_settings(path, self.results.settings, wanted)
            else:
                self.results = Results(wanted)
            if is_writer:
                _cut_unfinished_line(path)
                if not path.stat().st_size:
                    self._write({"format": FORMAT, "version": VERSION, "settings": wanted})
        except BaseException:
            self.close()
            raise

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
        """Append one result; it is on the disk when this returns.

        Raises:
          ResultsNotWritten: the disk is full, for example.
        """
        self.results.cells[result.model, result.cell] = result
        self.results.holes.pop(result.cell, None)
        self._write({"result": encode_result(result)})

    def add_hole(self, hole: Hole) -> None:
        """Append a hole, unless the file says the same already."""
        if self.results.holes.get(hole.cell) != hole.reason:
            self.results.holes[hole.cell] = hole.reason
            self._write({"hole": {"cell": list(hole.cell), "reason": hole.reason}})

    def close(self) -> None:
        """Close the file; results stay readable."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> "ResultsFile":
        """Return the file itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            if not is_in_place(self._file, self.path):
                raise ResultsNotWritten(
                    errno.ENOENT,
                    f"{self.path} was deleted, moved or replaced while the sweep appended to it. "
                    "Put it back, then run the same command again",
                )
            try:
                self._file.write(encode_line(line))
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                # Closing would try to write the rest again.
                with contextlib.suppress(OSError):
                    self.close()
                raise ResultsNotWritten(
                    error.errno,
                    f"cannot write to {self.path} ({error.strerror}). All results before are in "
                    "it: make room, then run the same command again",
                ) from error


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
    header = _read_header(path, lines[0])
    results = Results(header["settings"])
    is_summed = header["version"] != _VERSION_WITHOUT_SUMS
    for number, line in enumerate(lines[1:], start=2):
        try:
            _add_line(results, read_object(line, is_summed=is_summed))
        except DAMAGE as error:
            raise ValueError(
                f"{path}, line {number}, is damaged ({type(error).__name__}: {error}). Remove that "
                "line: its cell is then measured again, the others are kept."
            ) from error
    return results


def _read_header(path: Path, line: bytes) -> dict[str, Any]:
    if not line.startswith(_HEADER_START):
        raise ValueError(f"{path} is no results file of lska_jax; choose another --out.")
    try:
        header = read_object(line, is_summed=False)
        version = header["version"]
        if version == VERSION:
            read_object(line, is_summed=True)
        if type(header["settings"]) is not dict or type(version) is not int:
            raise ValueError("it has no settings or no version")
    except DAMAGE as error:
        raise ValueError(
            f"{path}, line 1, is damaged ({error}): what was measured is unknown. Choose another "
            "--out."
        ) from error
    if version not in (VERSION, _VERSION_WITHOUT_SUMS):
        raise ValueError(
            f"{path} has version {version} of the results format; this lska_jax reads "
            f"{_VERSION_WITHOUT_SUMS} and {VERSION} and writes {VERSION}. Choose another --out."
        )
    return header


def _add_line(results: Results, content: Mapping[str, Any]) -> None:
    line = decode_line(content)
    if isinstance(line, ModelStamp):
        results.models[line.name] = line
    elif isinstance(line, Hole):
        results.holes[line.cell] = line.reason
    elif isinstance(line, CellResult):
        results.cells[line.model, line.cell] = line
        results.holes.pop(line.cell, None)
    else:
        results.plan += line


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
    with path.open("rb") as file:
        content = file.read(len(_HEADER_START))
        return b"\n" not in content + file.readline() and _HEADER_START.startswith(content)


def _open_alone(path: Path) -> TextIO:
    """Open a file for appending, if no other process has it open for that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a", encoding="utf-8")
    try:
        lock_file(file)
    except InUse:
        file.close()
        raise InUse(
            f"Another sweep appends to {path}. Wait for it and run the same command again, or "
            "choose another --out."
        ) from None
    return file


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
