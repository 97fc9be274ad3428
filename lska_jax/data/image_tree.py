"""A folder or an uncompressed tar seen alike: what lies in it, and the bytes of chosen files.

Paths inside are written with "/" and without one at the end; "" is the tree itself. Nothing is
opened before it is read, and lists of files pickle into a few buffers, for worker processes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from lska_jax.data.class_folders import IMAGE_SUFFIXES, PackedNames, is_image_name
from lska_jax.data.folder import list_classes
from lska_jax.data.sources import Record, check_index
from lska_jax.data.tar_archive import TarMember, TarReader


@runtime_checkable
class FileList(Protocol):
    """Chosen files of a tree, in a fixed order."""

    def __len__(self) -> int:
        """Return how many there are."""

    def read(self, index: int) -> bytes:
        """Return the content of file ``index``."""

    def path(self, index: int) -> str:
        """Return what a person can look for: a file or ``archive.tar!member``."""


@runtime_checkable
class ImageTree(Protocol):
    """Folders and the files of one kind in them.

    Attributes:
      place: the folder or archive, for a person.
    """

    place: str

    def folders(self, inner: str) -> list[str]:
        """Return the names of the visible folders in a folder, sorted; [] if it is not there."""

    def files(self, inner: str) -> list[str]:
        """Return the names of the files that lie loosely in a folder, sorted."""

    def files_of(self, inner: str, folders: Sequence[str]) -> list[list[str]]:
        """Return the files at any depth of each of some folders, relative to it and sorted."""

    def choose(self, inner: str, names: Sequence[str]) -> FileList:
        """Return the files of these names relative to a folder."""


def open_tree(location: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> ImageTree:
    """Open an existing folder, or a file as a tar.

    Args:
      location: a folder or file.
      suffixes: how names of wanted files end, in lower case; others are not seen.

    Raises:
      ValueError: the file is compressed, no tar or cut short.
    """
    if location.is_dir():
        return FolderTree(location, suffixes)
    return TarTree(location, suffixes)


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
        return list(list_classes(self._root / inner, folders, self._suffixes))

    def choose(self, inner: str, names: Sequence[str]) -> "_FolderFiles":
        """Return the files of these names relative to a folder."""
        return _FolderFiles(str(self._root / inner), PackedNames(names))

    def _visible(self, inner: str) -> list[os.DirEntry[str]]:
        folder = self._root / inner
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]


class TarTree:
    """An uncompressed tar, read in place."""

    def __init__(self, path: Path, suffixes: tuple[str, ...]) -> None:
        """Scan the headers, or reuse this process's earlier scan of the same file.

        Raises:
          ValueError: the file is compressed, no tar or cut short.
        """
        self.place = str(path)
        self._reader = TarReader(path)
        self._members, self._folders = self._reader.index(suffixes)

    def folders(self, inner: str) -> list[str]:
        """Return the names of the visible folders in a folder, sorted."""
        found = self._folders.get(_as_prefix(inner), frozenset())
        return sorted(name for name in found if not name.startswith("."))

    def all_folders(self) -> list[str]:
        """Return the paths of all folders, the shortest first; "" leads."""
        paths = {""} | {parent + name for parent, names in self._folders.items() for name in names}
        return sorted(paths, key=lambda path: (len(path), path))

    def files(self, inner: str) -> list[str]:
        """Return the names of the files that lie loosely in a folder, sorted."""
        prefix = _as_prefix(inner)
        return sorted(
            name
            for member in self._members
            if member.name.startswith(prefix) and "/" not in (name := member.name[len(prefix) :])
        )

    def files_of(self, inner: str, folders: Sequence[str]) -> list[list[str]]:
        """Return the files at any depth of each of some folders, relative to it and sorted."""
        prefix = _as_prefix(inner)
        found: dict[str, list[str]] = {folder: [] for folder in folders}
        for member in self._members:
            if not member.name.startswith(prefix):
                continue
            folder, slash, name = member.name[len(prefix) :].partition("/")
            if slash and folder in found:
                found[folder].append(name)
        return [sorted(found[folder]) for folder in folders]

    def choose(self, inner: str, names: Sequence[str]) -> "_TarFiles":
        """Return the files of these names relative to a folder."""
        prefix = _as_prefix(inner)
        by_name = {m.name: m for m in self._members if m.name.startswith(prefix)}
        return _TarFiles(self._reader, [by_name[prefix + name] for name in names])


class _FolderFiles:
    def __init__(self, root: str, names: PackedNames) -> None:
        self._root = root
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        with open(self.path(index), "rb") as file:
            return file.read()

    def path(self, index: int) -> str:
        return os.path.join(self._root, self._names[int(index)])


class _TarFiles:
    def __init__(self, reader: TarReader, members: Sequence[TarMember]) -> None:
        self._reader = reader
        self._names = PackedNames(member.name for member in members)
        self._offsets = np.array([member.offset for member in members], np.int64)
        self._sizes = np.array([member.size for member in members], np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> bytes:
        member = TarMember(
            self._names[int(index)], int(self._offsets[index]), int(self._sizes[index])
        )
        return self._reader.read(member)

    def path(self, index: int) -> str:
        return f"{self._reader.path}!{self._names[int(index)]}"


class ListedSource:
    """A source of chosen files, each with a label of its own."""

    def __init__(
        self, name: str, files: FileList, labels: np.ndarray, class_names: Sequence[str]
    ) -> None:
        """Keep the list.

        Args:
          name: what is read.
          files: the images.
          labels: (N,) integers, one for each file.
          class_names: name of each class, in label order.
        """
        self.name = name
        self.class_names = tuple(class_names)
        self._files = files
        self._labels = np.asarray(labels, np.int32)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        """Return the bytes of image ``index`` and its label."""
        check_index(index, len(self), self.name)
        return Record(self._files.read(index), int(self._labels[index]))

    def path(self, index: int) -> str:
        """Return the path of the image."""
        check_index(index, len(self), self.name)
        return self._files.path(index)


def _as_prefix(inner: str) -> str:
    return f"{inner}/" if inner else ""
