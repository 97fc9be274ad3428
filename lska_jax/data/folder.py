"""Class folders as a source: ``SPLIT/CLASS/*.jpg``, as ImageNet and CIFAR exports are laid out.

Layout, for a folder and inside a tar alike:

- ``ROOT/SPLIT`` is read when it exists. Otherwise, when other split folders (``train``, ``val``...)
  exist, the split is missing: an error, never a guess. Otherwise ROOT itself holds the classes and
  every split reads the same images; ``Source.name`` then shows that two splits are one.
- Classes are the sorted folder names, and files are sorted within a class, so that labels and order
  are the same on every machine. Images may lie deeper inside a class folder.
- Names that begin with a dot, and files that are no images by suffix, are ignored.
- ImageNet-C's ``ROOT/CORRUPTION/SEVERITY/WNID/*.JPEG`` is ``folder:ROOT/CORRUPTION/SEVERITY``.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from lska_jax.data.sources import Record, Source, check_index

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm"),
)
# Folder names that mean "a split" rather than "a class" when they hold folders themselves.
SPLIT_SYNONYMS = (
    ("train", "training"),
    ("validation", "valid", "val", "dev", "test", "testing"),
)

# Listing is bound by the latency of a network file system, not by the processor.
_LISTING_THREADS = 16
_SECONDS_BEFORE_PROGRESS = 2.0

T = TypeVar("T")


def open_folder(location: str, *, split: str) -> Source:
    """Open class folders, or an uncompressed tar of them.

    Args:
        location: A folder, or a file that is read as a tar; ``~`` is expanded.
        split: The split's folder name; see the module for a location without split folders.

    Raises:
        ValueError: If the location or the split does not exist, or holds no usable images.
    """
    path = Path(location).expanduser()
    if not path.exists():
        raise ValueError(
            f"folder source: {path} does not exist; give an existing folder or .tar file"
        )
    if path.is_file():
        from lska_jax.data.tar_archive import TarSource

        return TarSource(path, split=split)
    return FolderSource(path, split=split)


class FolderSource:
    """The images of class folders, one file each."""

    def __init__(self, path: Path, *, split: str) -> None:
        """List the files; nothing is opened yet.

        Args:
            path: An existing folder.
            split: The split to read.

        Raises:
            ValueError: If the split is missing, or there is no class, or a class has no image.
        """
        root = _find_split(path, split)
        self.name = f"folder:{root}"
        self._root = str(root)
        class_names = sorted(entry.name for entry in _visible(root) if entry.is_dir())
        if not class_names:
            raise ValueError(no_class_message(self.name))
        files = list(list_classes(root, class_names))
        check_no_class_is_empty(self.name, class_names, [len(names) for names in files])
        self.class_names = tuple(class_names)
        self._names = PackedNames(name for names in files for name in names)
        self._labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(f) for f in files])

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        """Return the bytes of image ``index`` and its label."""
        with open(self.path(index), "rb") as file:
            return Record(file.read(), int(self._labels[index]))

    def path(self, index: int) -> str:
        """Return the path of the image file."""
        check_index(index, len(self), self.name)
        return os.path.join(
            self._root, self.class_names[self._labels[index]], self._names[int(index)]
        )


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
        ValueError: If there is one; it names the first few and the suffixes that count as images.
    """
    empty = [c for c, count in zip(class_names, image_counts, strict=True) if not count]
    if not empty:
        return
    shown = ", ".join(repr(c) for c in empty[:5]) + (", ..." if len(empty) > 5 else "")
    raise ValueError(
        f"{name}: {len(empty)} of {len(class_names)} class folders hold no image: {shown}; "
        f"add images ({' '.join(IMAGE_SUFFIXES)}) or remove the folders"
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


def list_classes(
    root: str | Path, class_names: Sequence[str], suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> Iterator[list[str]]:
    """Yield the images of each class folder, at any depth, relative to it and sorted.

    Args:
        root: The folder of the class folders.
        class_names: Their names.
        suffixes: How names of images end, in lower case.
    """
    folders = [os.path.join(root, name) for name in class_names]
    list_one = functools.partial(_list_images, suffixes=suffixes)
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        listed = pool.map(list_one, folders)
        yield from show_progress(listed, f"folder:{root}", "classes", len(folders))


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _find_split(path: Path, split: str) -> Path:
    if split and (path / split).is_dir():
        return path / split
    folders = [entry.name for entry in _visible(path) if entry.is_dir()]
    others = [n for n in folders if is_split_name(n) and _holds_only_folders(path / n)]
    if others:
        raise ValueError(missing_split_message(f"folder:{path}", split, others))
    return path


def _holds_only_folders(folder: Path) -> bool:
    entries = _visible(folder)
    return any(e.is_dir() for e in entries) and not any(is_image_name(e.name) for e in entries)


def _list_images(class_folder: str, suffixes: tuple[str, ...]) -> list[str]:
    images = []
    pending = [""]
    # Links to folders are followed, so without this a link to a parent would never end.
    entered = {_identity(os.stat(class_folder))}
    while pending:
        inner = pending.pop()
        for entry in _visible(os.path.join(class_folder, inner)):
            name = os.path.join(inner, entry.name)
            if entry.is_dir():
                if (identity := _identity(entry.stat())) not in entered:
                    entered.add(identity)
                    pending.append(name)
            elif is_image_name(entry.name, suffixes):
                images.append(name)
    return sorted(images)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
