"""The layout of class folders, the same in a folder and inside a tar.

- ``ROOT/SPLIT`` is read when it exists. Otherwise, when other split folders (``train``, ``val``...)
  exist, the split is missing: an error, never a guess. Otherwise ROOT itself holds the classes and
  every split reads the same images; ``Source.name`` then shows that two splits are one.
- Classes are the sorted folder names, and files are sorted within a class, so that labels and order
  are the same on every machine. Images may lie deeper inside a class folder.
- Names that begin with a dot, and files that are no images by suffix, are ignored.
- ImageNet-C's ``ROOT/CORRUPTION/SEVERITY/WNID/*.JPEG`` is ``folder:ROOT/CORRUPTION/SEVERITY``.
"""

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm"),
)
# Folder names that mean "a split" rather than "a class" when they hold folders themselves.
SPLIT_SYNONYMS = (
    ("train", "training"),
    ("validation", "valid", "val", "dev", "test", "testing"),
)

_SECONDS_BEFORE_PROGRESS = 2.0

T = TypeVar("T")


class PackedNames:
    """A read-only list of file names in two buffers.

    ImageNet has 1.28 million names: as a list of strings they cost over 100 MB in each worker and
    seconds to pickle, as one block of bytes a fifth of that and next to nothing.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Pack the names."""
        encoded = [os.fsencode(name) for name in names]
        self._bytes = b"".join(encoded)
        lengths = np.fromiter((len(name) for name in encoded), np.int64, len(encoded))
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        """Return name ``index``, in [0, len)."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]])


def is_image_name(name: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    """Tell whether a file's name is visible and ends like an image's."""
    return not name.startswith(".") and name.lower().endswith(suffixes)


def is_split_name(name: str) -> bool:
    """Tell whether a folder's name usually means a split."""
    return any(name in synonyms for synonyms in SPLIT_SYNONYMS)


def missing_split_message(name: str, split: str, found: Iterable[str]) -> str:
    """Word the error for a split that is not there, naming those that are."""
    found = sorted(found)
    message = f"{name} has no split {split!r}; it holds the splits: {', '.join(found)}"
    synonyms = next((names for names in SPLIT_SYNONYMS if split in names), ())
    if close := [other for other in found if other in synonyms]:
        message += f". If {close[0]!r} is what you mean, ask for it by that name"
    return message


def no_class_message(name: str) -> str:
    """Word the error for a place without class folders."""
    return (
        f"{name} is empty: it holds no class folders; "
        "images are expected as CLASS/image.jpg below it"
    )


def check_no_class_is_empty(
    name: str, class_names: Sequence[str], image_counts: Sequence[int]
) -> None:
    """Refuse class folders without an image.

    Raises:
      ValueError: if there is one; it names the first few and the suffixes that count as images.
    """
    empty = [c for c, count in zip(class_names, image_counts, strict=True) if not count]
    if not empty:
        return
    shown = ", ".join(repr(c) for c in empty[:5]) + (", ..." if len(empty) > 5 else "")
    raise ValueError(
        f"{name}: {len(empty)} of {len(class_names)} class folders hold no image: {shown}; "
        f"add images ({' '.join(IMAGE_SUFFIXES)}) or remove the folders."
    )


def show_progress(items: Iterable[T], name: str, unit: str, total: int | None) -> Iterable[T]:
    """Pass the items on, with a progress line on stderr once it takes more than two seconds."""
    from tqdm import tqdm

    return tqdm(
        items,
        desc=f"listing {name}",
        unit=f" {unit}",
        total=total,
        delay=_SECONDS_BEFORE_PROGRESS,
        mininterval=1.0,
        leave=False,
    )
