"""Scikit-learn's handwritten digits as a source: embedded, so that everything runs at once."""

import functools
import importlib.util
from pathlib import Path

import numpy as np

from lska_jax.data.sources import Extent, MissingSplit, Record, SourceFacts, check_index

_HELD_OUT_EVERY = 5
_NUM_CLASSES = 10
# Written out so that a config check needs no scikit-learn; a test compares them with the data.
_NUM_EXAMPLES = {"train": 1442, "test": 355, "all": 1797}


class DigitsSource:
    """Scikit-learn's handwritten digits, (8, 8, 1) uint8, with a fixed held-out fifth.

    Grey levels 0..16 are scaled to 0..255 and rounded. Within each class every fifth example, in
    the order of the data set (positions 4, 9, 14, ...), belongs to ``test`` and the others to
    ``train``, so that both splits are stratified and never change. ``all`` is both, in order.

    Source: https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset

    Attributes:
      labels: (N,) int32.
    """

    def __init__(self, split: str) -> None:
        """Load one split.

        Args:
          split: ``train`` (1,442 examples), ``test`` (355) or ``all`` (1,797).

        Raises:
          ValueError: if the split is none of these.
        """
        _check_digits_split(split)
        images, labels = _read()
        held_out = _every_fifth_of_each_class(labels)
        chosen = {"train": ~held_out, "test": held_out, "all": np.ones_like(held_out)}[split]
        self.name = f"digits/{split}"
        halves = ("train", "test") if split == "all" else (split,)
        self.extents = tuple(Extent(f"digits/{half}", 0, _NUM_EXAMPLES[half]) for half in halves)
        self.class_names = tuple(str(digit) for digit in range(_NUM_CLASSES))
        self._images = np.rint(images[chosen] * (255 / 16)).astype(np.uint8)[..., None]
        self.labels = labels[chosen].astype(np.int32)
        self._positions = np.flatnonzero(chosen)

    def __len__(self) -> int:
        """Return the number of examples in the split."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        """Return example ``index``: image (8, 8, 1) uint8 and label in [0, 10)."""
        check_index(index, len(self), self.name)
        return Record(self._images[index], int(self.labels[index]))

    def path(self, index: int) -> str:
        """Return ``digits#N``, where N counts in scikit-learn's order."""
        check_index(index, len(self), self.name)
        return f"digits#{self._positions[index]}"


def inspect_digits(split: str) -> SourceFacts:
    """Count classes and examples without importing scikit-learn.

    Raises:
      ValueError: the split is none of train, test and all.
    """
    _check_digits_split(split)
    return SourceFacts(_NUM_CLASSES, _NUM_EXAMPLES[split])


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Return grey levels (1797, 8, 8) from 0 to 16, and labels (1797,).

    From scikit-learn's own file, where it lies: importing the library takes longer than all other
    imports of a training run together.
    """
    library = importlib.util.find_spec("sklearn")
    for folder in (library.submodule_search_locations or ()) if library else ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.exists():
            table = _read_table(file)
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target


@functools.cache
def _read_table(file: Path) -> np.ndarray:
    """Return the file's numbers, parsed once: a run opens it for each of its splits."""
    return np.loadtxt(file, delimiter=",")


def _every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        held_out[of_class[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]] = True
    return held_out


def _check_digits_split(split: str) -> None:
    if split not in _NUM_EXAMPLES:
        allowed = ", ".join(_NUM_EXAMPLES)
        raise MissingSplit(f"The digits have no split {split!r}; allowed: {allowed}.")
