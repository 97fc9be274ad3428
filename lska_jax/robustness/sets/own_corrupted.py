"""Corrupted images of a model's own classes, as files: folders, or CIFAR-10-C's arrays.

- ``PLACE/CORRUPTION/SEVERITY/CLASS/*.png``, in a folder or an uncompressed tar.
- ``PLACE/CORRUPTION.npy`` (5 N, H, W, 3) uint8, the five severities one after the other, and
  ``PLACE/labels.npy`` with N or 5 N class numbers: the layout of CIFAR-10-C and CIFAR-100-C
  (https://zenodo.org/records/2535967). Numbers are positions in ``PLACE/classes.txt``, one name a
  line; without it in CIFAR-10's own order where the classes are CIFAR-10's, else in the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lska_jax.data.image_tree import ImageTree, open_tree
from lska_jax.data.listed_source import ListedSource
from lska_jax.data.sources import Record, Source, check_index
from lska_jax.robustness.scores.corruption_scorer import ErrorScorer
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS, SEVERITIES
from lska_jax.weights.class_names import read_names

# What corruptions are called in results that are none of the benchmark's.
OTHER_CORRUPTIONS = "own_c"
OTHER_SCORER = ErrorScorer()
_LABELS, _CLASSES = "labels.npy", "classes.txt"
_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SHOWN = 10


def find_corruptions(place: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the corruptions that a place holds, the benchmark's first, and their severities.

    Args:
      place: see the module.

    Raises:
      ValueError: there is nothing, or no corruption in it.
    """
    path = Path(place).expanduser()
    if path.is_dir() and (path / _LABELS).is_file():
        names = [file.stem for file in path.glob("*.npy") if file.name != _LABELS]
        found: dict[str, tuple[int, ...]] = {name: SEVERITIES for name in names}
    else:
        tree = open_tree(path)
        root = _root(tree)
        found = {name: _severities(tree, f"{root}{name}") for name in tree.folders(root[:-1])}
        found = {name: levels for name, levels in found.items() if levels}
    if not found:
        raise ValueError(
            f"{place} holds no corrupted images. Expected: CORRUPTION/SEVERITY/CLASS/image.png "
            f"with severities 1 to 5, or CORRUPTION.npy beside {_LABELS}."
        )
    order = {name: n for n, name in enumerate(ALL_CORRUPTIONS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def open_corrupted(
    place: str | Path, corruption: str, severity: int, *, class_names: Sequence[str]
) -> Source:
    """Open the images of one corruption at one severity; their classes are in any order.

    Args:
      place: see the module.
      corruption: one that ``find_corruptions`` returns.
      severity: one of its severities.
      class_names: of the model, in label order.

    Raises:
      ValueError: the arrays are not of their shapes or types, or a folder is no set of classes.
    """
    path = Path(place).expanduser()
    if path.is_dir() and (path / _LABELS).is_file():
        return _ArraySource(path, corruption, severity, class_names=class_names)
    tree = open_tree(path)
    inner = f"{_root(tree)}{corruption}/{severity}"
    classes = tree.folders(inner)
    files = tree.files_of(inner, classes)
    return ListedSource(
        f"folder:{tree.place}/{inner}",
        tree.choose(
            inner, [f"{c}/{n}" for c, names in zip(classes, files, strict=True) for n in names]
        ),
        np.repeat(np.arange(len(classes)), [len(names) for names in files]),
        classes,
    )


def _root(tree: ImageTree) -> str:
    """Return the path of the folder around all of it, with a slash, or ""."""
    names = tree.folders("")
    if len(names) == 1 and not _severities(tree, names[0]):
        return f"{names[0]}/"
    return ""


def _severities(tree: ImageTree, folder: str) -> tuple[int, ...]:
    levels = [int(name) for name in tree.folders(folder) if name.isdecimal()]
    return tuple(level for level in sorted(levels) if level in SEVERITIES)


class _ArraySource:
    """One severity of CIFAR-10-C's arrays; they are mapped, and opened anew in each process."""

    def __init__(
        self, place: Path, corruption: str, severity: int, *, class_names: Sequence[str]
    ) -> None:
        self._file = place / f"{corruption}.npy"
        labels = _load(place / _LABELS)
        images = _load(self._file)
        count, rest = divmod(len(images), len(SEVERITIES))
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8 or rest:
            raise ValueError(
                f"{self._file} holds {images.dtype} {images.shape}; expected uint8 (5 N, H, W, 3), "
                "N images of each severity."
            )
        if labels.ndim != 1 or len(labels) not in (count, len(images)):
            raise ValueError(
                f"{place / _LABELS} holds {labels.shape}; expected {count:,} class numbers, or "
                f"{len(images):,}."
            )
        self._first = (severity - 1) * count
        begin = self._first if len(labels) == len(images) else 0
        self.labels = np.asarray(labels[begin : begin + count], np.int32)
        self.class_names = _names_of_numbers(place, class_names)
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"{place / _LABELS} has class numbers from {self.labels.min()} to "
                f"{self.labels.max()}, and there are {len(self.class_names)} classes."
            )
        self.name = f"{self._file}#{severity}"
        self._images: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        check_index(index, len(self), self.name)
        if self._images is None:
            self._images = _load(self._file)
        return Record(np.array(self._images[self._first + index]), int(self.labels[index]))

    def path(self, index: int) -> str:
        """Return the file and the image's place in it."""
        check_index(index, len(self), self.name)
        return f"{self._file}#{self._first + index}"

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_images": None}


def _load(file: Path) -> np.ndarray:
    try:
        # No pickles: an array file may hold code otherwise.
        loaded: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as an array of numbers: {error}.") from error
    return loaded


def _names_of_numbers(place: Path, class_names: Sequence[str]) -> tuple[str, ...]:
    if (place / _CLASSES).is_file():
        return tuple(read_names(place / _CLASSES))
    return _CIFAR10 if sorted(class_names) == sorted(_CIFAR10) else tuple(class_names)
