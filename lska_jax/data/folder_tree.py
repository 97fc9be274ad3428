"""A folder of images: what lies in it, and the bytes of chosen files."""

import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lska_jax.data.class_folders import (
    PackedNames,
    is_image_name,
    is_visible,
    readable,
    show_progress,
)
from lska_jax.data.notes import say_once
from lska_jax.data.plain_file import read_plain_file

# Listing is bound by the latency of a network file system, not by the processor.
_LISTING_THREADS = 16


class FolderTree:
    """A folder."""

    def __init__(self, root: Path, suffixes: tuple[str, ...]) -> None:
        """Note the folder; nothing is listed yet."""
        self.place = str(root)
        self._root = root
        self._suffixes = suffixes

    def folders(self, inner: str) -> list[str]:
        """Return the names of the visible folders in a folder, sorted."""
        return sorted(entry.name for entry in self._visible(inner) if entry.is_dir())

    def files(self, inner: str) -> list[str]:
        """Return the names of the files that lie loosely in a folder, sorted."""
        return sorted(
            entry.name
            for entry in self._visible(inner)
            if is_image_name(entry.name, self._suffixes) and entry.is_file()
        )

    def files_of(self, inner: str, folders: Sequence[str]) -> list[list[str]]:
        """Return the files at any depth of each of some folders, relative to it and sorted."""
        return list(_list_classes(self._root / inner, folders, self._suffixes))

    def choose(self, inner: str, names: Sequence[str]) -> "FolderFiles":
        """Return the files of these names relative to a folder."""
        return FolderFiles(str(self._root / inner), PackedNames(names))

    def _visible(self, inner: str) -> list[os.DirEntry[str]]:
        folder = self._root / inner
        return visible_entries(folder) if folder.is_dir() else []


class FolderFiles:
    """Chosen files of a folder."""

    def __init__(self, root: str, names: PackedNames) -> None:
        """Keep the folder and the names in it."""
        self._root = root
        self._names = names

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._names)

    def read(self, index: int) -> bytes:
        """Return the content of file ``index``.

        Raises:
          BrokenImage: it is no plain file, or larger than any image.
        """
        return read_plain_file(self.path(index))

    def path(self, index: int) -> str:
        """Return the path of file ``index``."""
        return os.path.join(self._root, self._names[int(index)])


def visible_entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, without what people do not see."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if is_visible(entry.name)]


def _list_classes(
    root: Path, class_names: Sequence[str], suffixes: tuple[str, ...]
) -> Iterator[list[str]]:
    """Yield the images of each class folder, at any depth, relative to it and sorted.

    Args:
      root: the folder of the class folders.
      class_names: their names.
      suffixes: how names of images end, in lower case.
    """
    folders = [os.path.join(root, name) for name in class_names]
    list_one = functools.partial(_list_images, suffixes=suffixes)
    left_out: list[str] = []
    with ThreadPoolExecutor(_LISTING_THREADS) as pool:
        listed = pool.map(list_one, folders)
        for images, no_files in show_progress(listed, f"folder:{root}", "classes", len(folders)):
            left_out += no_files
            yield images
    if left_out:
        say_once(
            f"{len(left_out):,} of the images in {readable(str(root))} are left out: they are "
            "pipes, devices or links that lead nowhere, such as "
            f"{readable(left_out[0])}."
        )


def _list_images(class_folder: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the images below a folder, relative to it, and paths of those that are no files."""
    images: list[str] = []
    no_files: list[str] = []
    pending, linked = [""], list[str]()
    # Links to folders are followed, so without this two that lead to each other would never end.
    entered = {_identity(os.stat(class_folder))}
    while pending or linked:
        # What lies in the folder itself comes first, whatever order the system lists it in.
        inner = pending.pop() if pending else linked.pop(0)
        for entry in sorted(visible_entries(os.path.join(class_folder, inner)), key=_by_name):
            name = os.path.join(inner, entry.name)
            if entry.is_dir():
                if _leads_up(entry) or (identity := _identity(entry.stat())) in entered:
                    continue
                entered.add(identity)
                (linked if entry.is_symlink() else pending).append(name)
            elif is_image_name(entry.name, suffixes):
                if entry.is_file():
                    images.append(name)
                else:
                    no_files.append(entry.path)
    return sorted(images), sorted(no_files)


def _by_name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _leads_up(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry links to a folder that it lies in: it would hold other classes."""
    if not entry.is_symlink():
        return False
    place, target = (os.path.realpath(p) for p in (os.path.dirname(entry.path), entry.path))
    return os.path.join(place, "").startswith(os.path.join(target, ""))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
