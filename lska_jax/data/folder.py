"""Class folders as a source: ``SPLIT/CLASS/*.jpg``; the layout is that of ``class_folders``."""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lska_jax.data.class_folders import (
    IMAGE_SUFFIXES,
    PackedNames,
    check_no_class_is_empty,
    is_image_name,
    is_split_name,
    missing_split_message,
    no_class_message,
    show_progress,
)
from lska_jax.data.sources import Record, check_index

# Listing is bound by the latency of a network file system, not by the processor.
_LISTING_THREADS = 16


class FolderSource:
    """The images of class folders, one file each."""

    def __init__(self, path: Path, *, split: str) -> None:
        """List the files; nothing is opened yet.

        Args:
          path: an existing folder.
          split: the split to read.

        Raises:
          ValueError: if the split is missing, or there is no class, or a class has no image.
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


def list_classes(
    root: str | Path, class_names: Sequence[str], suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> Iterator[list[str]]:
    """Yield the images of each class folder, at any depth, relative to it and sorted.

    Args:
      root: the folder of the class folders.
      class_names: their names.
      suffixes: how names of images end, in lower case.
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
