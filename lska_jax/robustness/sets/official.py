"""Sets of the benchmark in their authors' folders: which file is which class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lska_jax.data.sources import Source
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.places import Place, Search, find_place
from lska_jax.robustness.sets.record import FoundFiles, ImageSet, MissingSet

# Folders that archive programs leave behind.
_IGNORED_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found"})


class _Listed(NamedTuple):
    """Paths of files in class order, the label of each, and what is missing."""

    names: list[str]
    labels: list[int]
    note: str


def search(image_set: ImageSet, cell: Cell, data_root: Path) -> Search:
    """Look for a cell's official folder or tar, and for what has to lie beside it.

    Raises:
      ValueError: a tar that may hold it is compressed or cannot be read.
    """
    found = find_place(
        image_set.places(cell),
        data_root,
        classes=image_set.classes,
        suffixes=image_set.suffixes,
    )
    if image_set.beside and image_set.find_beside(data_root) is None:
        return found._replace(place=None, empty=(), tried=", ".join(image_set.beside))
    return found


def open_official(
    image_set: ImageSet,
    cell: Cell,
    *,
    place: Place,
    data_root: Path,
    shapes: Sequence[str] | None = None,
) -> tuple[Source, Mapping[str, np.ndarray], str]:
    """Open a cell where it was found.

    Args:
      image_set: its set.
      cell: the cell.
      place: the folder of its class folders.
      data_root: the data folder.
      shapes: as for ``opening.open_cell``.

    Returns:
      The images, facts of each example as ``opening.CellData`` has them, and what is missing.

    Raises:
      MissingSet: its folders hold no image.
      ValueError: a folder or a file does not belong to the set, or labels are wrong.
    """
    listed = _list_files(image_set, cell, place)
    labels = np.array(listed.labels, np.int32)
    found = FoundFiles(place, listed.names, labels, image_set.classes, data_root, shapes)
    source, extra = image_set.open_files(found)
    return source, extra, listed.note


def _list_files(image_set: ImageSet, cell: Cell, place: Place) -> _Listed:
    tree, inner = place
    folders = [name for name in tree.folders(inner) if name not in _IGNORED_FOLDERS]
    loose = image_set.classes.loose
    if loose is not None and not any(map(image_set.classes.is_one, folders)):
        names = tree.files(inner)
        return _Listed(names, [loose.label_of(name) for name in names], "")
    label_of = image_set.classes.labels()
    if wrong := [name for name in folders if name not in label_of]:
        shown = ", ".join(map(repr, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise ValueError(
            f"{place.name}: {len(wrong)} of {len(folders)} folders are not classes of "
            f"{image_set.title}: {shown}. Move them elsewhere, or check that this is the set you "
            "mean."
        )
    folders.sort(key=label_of.__getitem__)
    files = tree.files_of(inner, folders)
    missing = len(label_of) - sum(map(bool, files))
    pairs = [
        (f"{folder}/{file}", label_of[folder])
        for folder, of_class in zip(folders, files, strict=True)
        for file in of_class
    ]
    if not pairs:
        raise MissingSet(
            f"{cell} is empty: the {len(folders)} class folders in {place.name} hold no image."
        )
    return _Listed(
        [name for name, _ in pairs],
        [label for _, label in pairs],
        f"{missing} of {len(label_of)} classes have no image" if missing else "",
    )
