"""An uncompressed tar, read in place: one file instead of a million.

The headers are scanned once per process for each member's offset and size; a file is then one
``pread``, in any order and from any thread. What was found travels with pickled lists of files, so
worker processes do not scan again.

Only regular members count: links, devices and sparse files are skipped. Nothing is ever extracted,
so a member named ``../../etc/passwd`` can do no harm.
"""

import functools
import os
import tarfile
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lska_jax.data.class_folders import (
    IMAGE_SUFFIXES,
    PackedNames,
    is_image_name,
    show_progress,
)

# First bytes of a compressed file, its name, and the command that undoes it.
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip", "gunzip --keep"),
    (b"BZh", "bzip2", "bunzip2 --keep"),
    (b"\xfd7zXZ\x00", "xz", "unxz --keep"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd --keep"),
)


class TarMember(NamedTuple):
    """A file inside a tar.

    Attributes:
      name: its path, without a leading ``./``.
      offset: where its content begins, in bytes from the beginning of the archive.
      size: in bytes.
    """

    name: str
    offset: int
    size: int


class TarReader:
    """Reads members of a tar in place, from any thread; pickles without its open file.

    Attributes:
      path: the archive.
    """

    def __init__(self, path: Path) -> None:
        """Note the archive's size and time, so that a later change is seen.

        Args:
          path: an existing file.
        """
        self.path = str(path)
        self._stamp = _stamp(os.stat(path))
        self._file: int | None = None
        self._lock = threading.Lock()

    def index(
        self, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    ) -> tuple[Sequence[TarMember], Mapping[str, frozenset[str]]]:
        """Scan the headers, or reuse this process's earlier scan of the same file.

        Args:
          suffixes: how names of wanted files end, in lower case.

        Returns:
          The wanted files, and the names of the folders in each folder: "" is the top, others
          end in "/".

        Raises:
          ValueError: if the file is compressed, no tar or cut short.
        """
        return _scan(self.path, self._stamp, suffixes)

    def read(self, member: TarMember) -> bytes:
        """Return a member's content.

        Raises:
          ValueError: if the archive was replaced or cut short after it was scanned.
        """
        content = os.pread(self._open(), member.size, member.offset)
        if len(content) != member.size:
            raise ValueError(
                f"{self.path}!{member.name} is cut short: {len(content)} of {member.size} bytes."
            )
        return content

    def _open(self) -> int:
        if self._file is None:
            with self._lock:
                if self._file is None:
                    file = os.open(self.path, os.O_RDONLY)
                    if _stamp(os.fstat(file)) != self._stamp:
                        os.close(file)
                        raise ValueError(f"{self.path} has changed since it was scanned: restart.")
                    self._file = file
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        """Pickle neither the open file nor the lock."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; the file is opened again on first use."""
        self.__dict__.update(state, _file=None, _lock=threading.Lock())

    def __del__(self) -> None:
        """Close the file."""
        file, self._file = getattr(self, "_file", None), None
        if file is not None:
            os.close(file)


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

    def choose(self, inner: str, names: Sequence[str]) -> "TarFiles":
        """Return the files of these names relative to a folder."""
        prefix = _as_prefix(inner)
        by_name = {m.name: m for m in self._members if m.name.startswith(prefix)}
        return TarFiles(self._reader, [by_name[prefix + name] for name in names])


class TarFiles:
    """Chosen members of a tar."""

    def __init__(self, reader: TarReader, members: Sequence[TarMember]) -> None:
        """Keep where the members lie."""
        self._reader = reader
        self._names = PackedNames(member.name for member in members)
        self._offsets = np.array([member.offset for member in members], np.int64)
        self._sizes = np.array([member.size for member in members], np.int64)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._names)

    def read(self, index: int) -> bytes:
        """Return the content of member ``index``.

        Raises:
          ValueError: if the archive was replaced or cut short after it was scanned.
        """
        member = TarMember(
            self._names[int(index)], int(self._offsets[index]), int(self._sizes[index])
        )
        return self._reader.read(member)

    def path(self, index: int) -> str:
        """Return ``archive.tar!member``."""
        return f"{self._reader.path}!{self._names[int(index)]}"


# A few entries, so that train and test splits of one archive share a scan.
@functools.lru_cache(maxsize=4)
def _scan(
    path: str, stamp: tuple[int, int], suffixes: tuple[str, ...]
) -> tuple[Sequence[TarMember], Mapping[str, frozenset[str]]]:
    """Index an archive: its files, and for each folder ("" is the top) the folders in it."""
    _refuse_compressed(path)
    images: dict[str, TarMember] = {}
    folders: defaultdict[str, set[str]] = defaultdict(set)
    try:
        with tarfile.open(path, "r:") as archive:
            for member in show_progress(archive, f"folder:{path}", "members", None):
                # The archive keeps every header it has read; a million of them fill gigabytes.
                archive.members = []  # type: ignore[attr-defined]
                name = member.name.removeprefix("./").rstrip("/")
                if member.isdir():
                    _add_folder(folders, name)
                elif (
                    member.isreg()
                    and not member.issparse()
                    and is_image_name(_last_part(name), suffixes)
                ):
                    _add_folder(folders, name.rpartition("/")[0])
                    # A name that comes twice is an update: the last one counts, as for tar itself.
                    images[name] = TarMember(name, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"{path} cannot be read as an uncompressed tar: {error}") from error
    file_size = stamp[0]
    end = max((member.offset + member.size for member in images.values()), default=0)
    if end > file_size:
        raise ValueError(
            f"{path} is cut short: its members reach byte {end:,}, the file has {file_size:,}; "
            "copy or download it again."
        )
    return tuple(images.values()), {k: frozenset(v) for k, v in folders.items()} | {
        "": frozenset(folders.get("", ()))
    }


def _add_folder(folders: defaultdict[str, set[str]], name: str) -> None:
    """Register a folder ``a/b`` as ``b`` in ``a/``, and ``a`` at the top."""
    parent = ""
    for part in name.split("/"):
        if part in ("", "."):
            continue
        folders[parent].add(part)
        parent += part + "/"


def _refuse_compressed(path: str) -> None:
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, compression, command in _COMPRESSIONS:
        if start.startswith(magic):
            raise ValueError(
                f"{path} is compressed ({compression}), which allows no random access; "
                f"decompress it once with: {command} {path}"
            )


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]


def _as_prefix(inner: str) -> str:
    return f"{inner}/" if inner else ""
