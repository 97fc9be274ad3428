"""Images listed in a CSV file: a path and a label each, and a split where the file has one.

    path,label,split
    cats/1.jpg,cat,train
    dogs/7.jpg,dog,val

- The first line may name the columns, in any order; without names they are path, label and split.
- Paths are relative to the folder of the file. Commas, semicolons or tabs separate the columns.
- With a column ``split`` a split has the images of its name, or of another name for it
  (``split_names``). Without one every split reads all of them; ``train[:80%]`` and ``train[80%:]``
  cut it in two as class folders are cut (``split_slices``).
- Classes are the labels of the whole file, sorted: as numbers where all are whole numbers.
- Several labels of one image stand in one cell with ``|`` between them, for a task that asks for
  them; an empty cell then means none.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lska_jax.data.class_folders import PackedNames, readable
from lska_jax.data.folder_tree import FolderFiles
from lska_jax.data.listed_source import ListedSource
from lska_jax.data.notes import say_once
from lska_jax.data.sources import Extent, MissingSplit, Record, check_index
from lska_jax.data.split_names import choose_split
from lska_jax.data.split_slices import Slice, describe_slice, parse_slices, slice_classes

LABEL_SEPARATOR = "|"
_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image", "image_path"),
    "label": ("label", "labels", "class", "class_name", "target"),
    "split": ("split", "set", "subset"),
}
_SHOWN = 5
# Of fewer, each slice's share would be that of their order, not of a draw.
_LEAST_CUT = 5


class CsvSource(ListedSource):
    """The images that a CSV file lists."""

    def __init__(self, location: str | Path, *, split: str, is_multi_label: bool = False) -> None:
        """Read the list; no image is opened yet.

        Args:
          location: the file.
          split: the split to read, or slices of it.
          is_multi_label: whether an image may have any number of labels. They are then rows (K,) of
            0 and 1, uint8.

        Raises:
          ValueError: the file cannot be read as such a list, images are missing, or the split is.
        """
        path = Path(location).expanduser()
        rows = _read_rows(path)
        each = [_labels_of(row, path, is_multi_label=is_multi_label) for row in rows]
        names = _sort_labels({label for labels in each for label in labels})
        if not names:
            raise ValueError(f"{path} holds no label.")
        kinds = _kinds(each) if is_multi_label else [row.label for row in rows]
        chosen, extents = _choose(rows, kinds, split, path)
        _check_files([rows[n] for n in chosen], path)
        self._is_multi_label = is_multi_label
        place = {name: position for position, name in enumerate(names)}
        positions = [[place[label] for label in each[n]] for n in chosen]
        if is_multi_label:
            labels = np.zeros((len(chosen), len(names)), np.int32)
            for row, ones in enumerate(positions):
                labels[row, ones] = 1
        else:
            labels = np.array([one for (one,) in positions], np.int32)
        super().__init__(
            "+".join(name for name, _ in extents),
            FolderFiles(str(path.parent), PackedNames([rows[n].path for n in chosen])),
            labels,
            names,
            extents=[extent for _, extent in extents],
        )

    def __getitem__(self, index: int) -> Record:
        """Return the bytes of image ``index`` and its label, or its labels (K,) uint8."""
        if not self._is_multi_label:
            return super().__getitem__(index)
        check_index(index, len(self), self.name)
        return Record(self._files.read(index), self.labels[index].astype(np.uint8))


class _Row(NamedTuple):
    """One line of the file.

    Attributes:
      number: of the line, from 1.
      path: of the image, as it is written.
      label: the text of its cell.
      split: the same, or "" where the file has no such column.
    """

    number: int
    path: str
    label: str
    split: str


def _read_rows(path: Path) -> list[_Row]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        first = text.lstrip().partition("\n")[0]
        separator = next((mark for mark in ",;\t" if mark in first), ",")
        lines = list(csv.reader(text.splitlines(), delimiter=separator, strict=True))
    except (OSError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}.") from error
    cells = [(n, [cell.strip() for cell in line]) for n, line in enumerate(lines, 1)]
    cells = [(n, line) for n, line in cells if any(line)]
    if not cells:
        raise ValueError(f"{path} is empty; images are expected as lines of path,label.")
    places = _find_columns(cells[0][1])
    if places is None:
        places = {name: place for place, name in enumerate(_COLUMNS)}
    else:
        cells = cells[1:]
    rows = []
    for number, line in cells:
        if len(line) <= max(places["path"], places["label"]) or not line[places["path"]]:
            raise ValueError(
                f"{path}, line {number}: {separator.join(line)!r} has no path and label; write "
                f"them as path{separator}label, and a separator inside of one in double quotes."
            )
        split = places.get("split", len(line))
        rows.append(
            _Row(
                number,
                line[places["path"]],
                line[places["label"]],
                line[split] if split < len(line) else "",
            )
        )
    if not rows:
        raise ValueError(f"{path} names its columns and lists no image.")
    return rows


def _find_columns(line: Sequence[str]) -> dict[str, int] | None:
    """Return where each column is, if the line names columns."""
    words = [word.lower() for word in line]
    places = {
        column: next((words.index(name) for name in names if name in words), None)
        for column, names in _COLUMNS.items()
    }
    if places["path"] is None or places["label"] is None:
        return None
    return {column: place for column, place in places.items() if place is not None}


def _labels_of(row: _Row, path: Path, *, is_multi_label: bool) -> list[str]:
    if is_multi_label:
        parts = (part.strip() for part in row.label.split(LABEL_SEPARATOR))
        return sorted({part for part in parts if part})
    if not row.label:
        raise ValueError(f"{path}, line {row.number}: {row.path} has no label.")
    return [row.label]


def _sort_labels(labels: set[str]) -> list[str]:
    if all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def holds_several_labels(location: str | Path) -> bool:
    """Tell whether a cell of a file has several labels.

    Raises:
      ValueError: the file cannot be read as such a list.
    """
    return any(LABEL_SEPARATOR in row.label for row in _read_rows(Path(location).expanduser()))


def _kinds(labels: Sequence[Sequence[str]]) -> list[str]:
    """Return the sets of labels that are cut alike; rare ones are cut as if they were one."""
    joined = [LABEL_SEPARATOR.join(of_row) for of_row in labels]
    counts = Counter(joined)
    return [kind if counts[kind] >= _LEAST_CUT else LABEL_SEPARATOR for kind in joined]


def _choose(
    rows: Sequence[_Row], kinds: Sequence[str], split: str, path: Path
) -> tuple[list[int], list[tuple[str, Extent]]]:
    """Return which rows a split is, in the order of the file, and what each part of it is.

    Args:
      rows: of the file.
      kinds: of each row, of which a slice keeps the same share.
      split: its name, or slices of it.
      path: of the file.
    """
    chosen: list[int] = []
    extents = []
    for part in parse_slices(split) if split else [Slice("")]:
        place, of_split = _rows_of(rows, part.split, path)
        name, extent = place, Extent(place, 0, len(of_split))
        if not part.is_whole:
            # So that each class has its share.
            by_kind: dict[str, list[int]] = {}
            for n in of_split:
                by_kind.setdefault(kinds[n], []).append(n)
            order = [n for kind in sorted(by_kind) for n in by_kind[kind]]
            files = [[rows[n].path for n in by_kind[kind]] for kind in sorted(by_kind)]
            extent, kept = slice_classes(part, extent, files)
            of_split = sorted(order[n] for n in kept)
            name += describe_slice(part)
        if not of_split:
            raise ValueError(f"{name} has no images.")
        chosen += of_split
        extents.append((name, extent))
    return chosen, extents


def _rows_of(rows: Sequence[_Row], split: str, path: Path) -> tuple[str, list[int]]:
    where = readable(f"csv:{path}")
    found = sorted({row.split for row in rows} - {""})
    if not split or not found:
        return where, list(range(len(rows)))
    chosen = choose_split(split, found, where=where)
    if chosen is None:
        raise MissingSplit(
            f"{where} has no split {split!r}; it holds {', '.join(map(readable, found))}. Ask for "
            f"one of them, or for two parts of one, such as '{found[-1]}[:80%]'."
        )
    if chosen != split:
        say_once(f"{where} has no split {split!r}; {readable(chosen)!r} is read for it.")
    return f"{where}#{chosen}", [n for n, row in enumerate(rows) if row.split == chosen]


def _check_files(rows: Sequence[_Row], path: Path) -> None:
    missing = [row for row in rows if not os.path.exists(os.path.join(path.parent, row.path))]
    if missing:
        shown = ", ".join(f"{readable(row.path)} (line {row.number})" for row in missing[:_SHOWN])
        more = ", ..." if len(missing) > _SHOWN else ""
        raise ValueError(
            f"{path}: {len(missing)} of {len(rows)} images are not there: {shown}{more}. Paths are "
            f"relative to {path.parent}."
        )
