"""Where examples come from: one random-access contract, opened by a short name.

A *source* hands out one example at a time, as it is stored: the encoded bytes of an image file, or
an array when nothing was encoded. Order, shards, decoding and batches are other modules' business.

| Name | What it reads | Module |
|---|---|---|
| ``digits`` | the 1,797 handwritten digits that come with scikit-learn | this one |
| ``folder:PATH`` | class folders, ``PATH/SPLIT/CLASS/*.jpg`` or ``PATH/CLASS/*.jpg`` | ``folder`` |
| ``folder:PATH.tar`` | the same layout inside an uncompressed tar | ``tar_archive`` |
| ``tfds:NAME[/CONFIG][:VERSION]`` | a TFDS set prepared as ArrayRecord | ``tfds_source`` |
"""

import difflib
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

_KINDS = ("digits", "folder:PATH", "folder:PATH.tar", "tfds:NAME[/CONFIG][:VERSION]")

_DIGITS_HELD_OUT_EVERY = 5
_DIGITS_NUM_CLASSES = 10
# Written out so that a config check needs no scikit-learn; a test compares them with the data.
_DIGITS_NUM_EXAMPLES = {"train": 1442, "test": 355, "all": 1797}


class Record(NamedTuple):
    """One example as it is stored.

    Attributes:
        image: The bytes of an encoded image file, or a decoded array (H, W, C) uint8.
        label: The class index, in [0, number of classes).
    """

    image: bytes | np.ndarray
    label: int


class SourceFacts(NamedTuple):
    """What a config check needs to know about a source.

    Attributes:
        num_classes: Number of classes that labels may take.
        num_examples: Number of examples in the split.
    """

    num_classes: int
    num_examples: int


@runtime_checkable
class Source(Protocol):
    """Random access to the examples of one split.

    A source is safe to read from several threads, pickles cheaply, and opens its files on first
    use in each process.

    Attributes:
        name: What is read, e.g. ``folder:/data/imagenet/train``.
        class_names: Name of each class, in label order.
    """

    name: str
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, index: int) -> Record:
        """Return example ``index``, in [0, len); IndexError otherwise."""

    def path(self, index: int) -> str:
        """Return what a person can look for: a file, ``archive.tar!member``, ``digits#12``."""


def open_source(spec: str, *, split: str, data_dir: str | None = None) -> Source:
    """Open a source by its name.

    Args:
        spec: One of the names in the module's table.
        split: ``train``, ``test`` and so on; ``tfds:`` also takes slices such as ``train[:80%]``.
        data_dir: Where TFDS sets are prepared; ``None`` is TFDS's own default. Others ignore it.

    Returns:
        The opened source.

    Raises:
        ValueError: If the name is unknown, or the data or the split is missing, empty or unusable.
    """
    kind, location = _parse(spec)
    if kind == "digits":
        return DigitsSource(split)
    if kind == "folder":
        from lska_jax.data.folder import open_folder

        return open_folder(location, split=split)
    from lska_jax.data.tfds_source import TfdsSource

    return TfdsSource(location, split=split, data_dir=data_dir)


def inspect_source(spec: str, *, split: str, data_dir: str | None = None) -> SourceFacts:
    """Count classes and examples without importing TFDS or scikit-learn.

    Args:
        spec: As for ``open_source``.
        split: As for ``open_source``.
        data_dir: As for ``open_source``.

    Returns:
        The number of classes and of examples.

    Raises:
        ValueError: As ``open_source``, for everything that shows without reading an example.
    """
    kind, location = _parse(spec)
    if kind == "digits":
        _check_digits_split(split)
        return SourceFacts(_DIGITS_NUM_CLASSES, _DIGITS_NUM_EXAMPLES[split])
    if kind == "folder":
        from lska_jax.data.folder import open_folder

        folder = open_folder(location, split=split)
        return SourceFacts(len(folder.class_names), len(folder))
    from lska_jax.data.tfds_source import inspect_tfds

    return inspect_tfds(location, split=split, data_dir=data_dir)


class DigitsSource:
    """Scikit-learn's handwritten digits, (8, 8, 1) uint8, with a fixed held-out fifth.

    Grey levels 0..16 are scaled to 0..255 and rounded. Within each class every fifth example, in
    the order of the data set (positions 4, 9, 14, ...), belongs to ``test`` and the others to
    ``train``, so that both splits are stratified and never change. ``all`` is both, in order.

    Source: https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset
    """

    def __init__(self, split: str) -> None:
        """Load one split.

        Args:
            split: ``train`` (1,442 examples), ``test`` (355) or ``all`` (1,797).

        Raises:
            ValueError: If the split is none of these.
        """
        _check_digits_split(split)
        from sklearn.datasets import load_digits

        digits = load_digits()
        held_out = _every_fifth_of_each_class(digits.target)
        chosen = {"train": ~held_out, "test": held_out, "all": np.ones_like(held_out)}[split]
        self.name = f"digits/{split}"
        self.class_names = tuple(str(digit) for digit in range(_DIGITS_NUM_CLASSES))
        self._images = np.rint(digits.images[chosen] * (255 / 16)).astype(np.uint8)[..., None]
        self._labels = digits.target[chosen]
        self._positions = np.flatnonzero(chosen)

    def __len__(self) -> int:
        """Return the number of examples in the split."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        """Return example ``index``: image (8, 8, 1) uint8 and label in [0, 10)."""
        check_index(index, len(self), self.name)
        return Record(self._images[index], int(self._labels[index]))

    def path(self, index: int) -> str:
        """Return ``digits#N``, where N counts in scikit-learn's order."""
        check_index(index, len(self), self.name)
        return f"digits#{self._positions[index]}"


def check_index(index: int, length: int, name: str) -> None:
    """Refuse an index outside [0, length).

    Raises:
        IndexError: If it is outside; sources have no negative indices.
    """
    if not 0 <= index < length:
        raise IndexError(f"example {index} of {name}: indices run from 0 to {length - 1}")


def _every_fifth_of_each_class(labels: np.ndarray) -> np.ndarray:
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        held_out[of_class[_DIGITS_HELD_OUT_EVERY - 1 :: _DIGITS_HELD_OUT_EVERY]] = True
    return held_out


def _check_digits_split(split: str) -> None:
    if split not in _DIGITS_NUM_EXAMPLES:
        allowed = ", ".join(_DIGITS_NUM_EXAMPLES)
        raise ValueError(f"digits has no split {split!r}; its splits are: {allowed}")


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, location = spec.partition(":")
    if spec == "digits":
        return kind, ""
    if colon and location and kind in ("folder", "tfds"):
        return kind, location
    message = f"unknown data source {spec!r}; write one of: {', '.join(_KINDS)}"
    if not colon and kind in ("folder", "tfds"):
        message += f". {kind!r} needs a colon and what to open after it"
    elif "/" in kind or spec.endswith(".tar"):
        message += f". Did you mean 'folder:{spec}'?"
    elif close := difflib.get_close_matches(kind, ("digits", "folder", "tfds"), n=1):
        message += f". Did you mean {close[0] + colon + location!r}?"
    raise ValueError(message)
