"""Where examples come from: one random-access contract.

A *source* hands out one example at a time, as it is stored: the encoded bytes of an image file, or
an array when nothing was encoded. Order, shards, decoding and batches are other modules' business;
``lska_jax.data.opening`` opens one by its name.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


class BrokenImage(ValueError):
    """Raised for bytes that do not hold one complete image; the message is a short reason."""


class MissingSplit(ValueError):
    """Raised where data is there and has no split of the name that was asked for."""


class Record(NamedTuple):
    """One example as it is stored.

    Attributes:
      image: the bytes of an encoded image file, or a decoded array (H, W, C) uint8.
      label: the class index, in [0, number of classes); or, of a source with any number of labels
        an image, a row (K,) of 0 and 1.
    """

    image: bytes | np.ndarray
    label: Any


class SourceFacts(NamedTuple):
    """What a config check needs to know about a source.

    Attributes:
      num_classes: number of classes that labels may take.
      num_examples: number of examples in the split.
    """

    num_classes: int
    num_examples: int


class Extent(NamedTuple):
    """A run of examples, in an order that all slices of their place share.

    Attributes:
      place: what the slices are cut from.
      begin: the first of them.
      end: the one after the last.
      order: which of the orders of the place, which slices of one seed share.
    """

    place: str
    begin: int
    end: int
    order: int = 0


@runtime_checkable
class Examples(Protocol):
    """Random access to the examples of one split, whatever an example is.

    They are safe to read from several threads, pickle cheaply, and open their files on first use
    in each process.

    Attributes:
      name: what is read, e.g. ``folder:/data/imagenet/train``.
    """

    name: str

    def __len__(self) -> int:
        """Return the number of examples."""

    def __getitem__(self, index: int) -> Any:
        """Return example ``index``, in [0, len); IndexError otherwise."""

    def path(self, index: int) -> str:
        """Return what a person can look for: a file, ``archive.tar!member``, ``digits#12``."""


@runtime_checkable
class Source(Examples, Protocol):
    """Examples that are images with a class each.

    Attributes:
      class_names: name of each class, in label order.
    """

    class_names: tuple[str, ...]

    def __getitem__(self, index: int) -> Record:
        """Return example ``index``, in [0, len); IndexError otherwise."""


def check_index(index: int, length: int, name: str) -> None:
    """Refuse an index outside [0, length).

    Raises:
      IndexError: if it is outside; sources have no negative indices.
    """
    if not 0 <= index < length:
        raise IndexError(f"Example {index} of {name}: indices run from 0 to {length - 1}")


def share_examples(first: Examples, second: Examples) -> bool:
    """Tell whether two sources are known to have examples in common.

    Sources that are slices of something say so in ``extents``; others are not known to. Slices of
    different orders are taken to share some.

    Args:
      first: examples.
      second: other examples.
    """
    return any(
        one.place == other.place
        and (one.order != other.order or (one.begin < other.end and other.begin < one.end))
        for one in getattr(first, "extents", ())
        for other in getattr(second, "extents", ())
    )
