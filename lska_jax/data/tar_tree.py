"""An uncompressed tar, read in place: one file instead of a million.

The headers are scanned once per process for each member's offset and size; a file is then one
``pread``, in any order and from any thread. What was found travels with pickled lists of files, so
worker processes do not scan again.

Files and links to what the archive holds count, as in a folder; devices and sparse files are left
out. Nothing is ever extracted, so a member named ``../../etc/passwd`` can do no harm.
"""

import functools
import os
import tarfile
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lska_jax.data.class_folders import (
    PackedNames,
    is_image_name,
    is_visible,
    readable,
    show_progress,
)
from lska_jax.data.notes import say_once
from lska_jax.data.plain_file import check_num_bytes
from lska_jax.data.tar_headers import read_headers

# Links that a path may follow, and names that links may add to an archive.
_MAX_LINKS = 40
_MAX_LINKED_NAMES = 10_000_000


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
        self, suffixes: tuple[str, ...]
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
          BrokenImage: it is larger than any image.
          ValueError: if the archive was replaced or cut short after it was scanned.
        """
        check_num_bytes(member.size)
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
        return sorted(self._folders.get(_as_prefix(inner), ()))

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


class _Index:
    """What an archive holds, while its headers are read.

    Attributes:
      files: wanted files by name.
      folders: the folders in each folder; "" is the top, others end in "/".
      links: where symbolic links lead, relative to their folder, and hard links, from the top.
      left_out: names of wanted files that are neither files nor links.
    """

    def __init__(self) -> None:
        self.files: dict[str, TarMember] = {}
        self.folders: defaultdict[str, set[str]] = defaultdict(set)
        self.links: dict[str, str] = {}
        self.left_out: list[str] = []

    def add(self, member: tarfile.TarInfo, suffixes: tuple[str, ...]) -> None:
        """Note one member; a name that comes twice is an update, as for tar itself."""
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        # Names that lead out begin with "..", which is not visible either.
        if not parts or not all(map(is_visible, parts)):
            return
        name = "/".join(parts)
        if member.isdir():
            self._add_folder(name)
        elif member.issym() or member.islnk():
            self.files.pop(name, None)
            up = "../" * (len(parts) - 1) if member.islnk() else ""
            self.links[name] = up + member.linkname
        elif is_image_name(parts[-1], suffixes):
            self.links.pop(name, None)
            if member.isreg() and not member.issparse():
                self.add_file(TarMember(name, member.offset_data, member.size))
            else:
                self.left_out.append(name)

    def add_file(self, member: TarMember) -> None:
        """Note a file and the folders that it lies in."""
        self._add_folder(member.name.rpartition("/")[0])
        self.files[member.name] = member

    def is_folder(self, name: str) -> bool:
        """Tell whether a name, or "" for the top, is that of a folder."""
        parent, slash, last = name.rpartition("/")
        return not name or last in self.folders.get(parent + slash, ())

    def _add_folder(self, name: str) -> None:
        """Register a folder ``a/b`` as ``b`` in ``a/``, and ``a`` at the top."""
        parent = ""
        for part in name.split("/"):
            if part:
                self.folders[parent].add(part)
                parent += part + "/"


# A few entries, so that train and test splits of one archive share a scan.
@functools.lru_cache(maxsize=4)
def _scan(
    path: str, stamp: tuple[int, int], suffixes: tuple[str, ...]
) -> tuple[Sequence[TarMember], Mapping[str, frozenset[str]]]:
    """Index an archive: its files, and for each folder ("" is the top) the folders in it."""
    found = _Index()
    for member in show_progress(read_headers(path), f"folder:{path}", "members", None):
        found.add(member, suffixes)
    file_size = stamp[0]
    end = max((member.offset + member.size for member in found.files.values()), default=0)
    if end > file_size:
        raise ValueError(
            f"{path} is cut short: its members reach byte {end:,}, the file has {file_size:,}; "
            "copy or download it again."
        )
    left_out = found.left_out + _follow_links(found, path, suffixes)
    if left_out:
        say_once(
            f"{len(left_out):,} of the members of {readable(path)} are left out: they are pipes, "
            "devices, sparse files or links that lead nowhere in the archive, such as "
            f"{readable(left_out[0])}."
        )
    folders = {place: frozenset(names) for place, names in found.folders.items()}
    return tuple(found.files.values()), {"": frozenset()} | folders


def _follow_links(found: _Index, path: str, suffixes: tuple[str, ...]) -> list[str]:
    """Add the files that links stand for; return the links that lead to nothing.

    Links are followed as in a folder of files: also those to folders, but never into a circle.
    """
    real = sorted(found.files)
    dead, linked = [], []
    for link in sorted(found.links):
        place = _resolve(link, found.links)
        if place is not None and place in found.files:
            if is_image_name(link.rpartition("/")[2], suffixes):
                linked.append(found.files[place]._replace(name=link))
        elif place is not None and found.is_folder(place):
            if place and not f"{link}/".startswith(f"{place}/"):
                inside = range(bisect_left(real, f"{place}/"), bisect_left(real, f"{place}0"))
                linked += [
                    found.files[real[n]]._replace(name=link + real[n][len(place) :]) for n in inside
                ]
        elif is_image_name(link, suffixes) or not os.path.splitext(link)[1]:
            dead.append(link)
        if len(linked) > _MAX_LINKED_NAMES:
            raise ValueError(
                f"{path} cannot be read: its links stand for more than {_MAX_LINKED_NAMES:,} files."
            )
    for member in linked:
        found.add_file(member)
    return dead


def _resolve(name: str, links: Mapping[str, str]) -> str | None:
    """Return where a path leads; None: out of the archive, or round in a circle."""
    done: list[str] = []
    pending = name.split("/")[::-1]
    followed = 0
    while pending:
        part = pending.pop()
        if part == "..":
            if not done:
                return None
            done.pop()
        elif part not in ("", "."):
            target = links.get("/".join([*done, part]))
            if target is None:
                done.append(part)
                continue
            followed += 1
            if followed > _MAX_LINKS or target.startswith("/"):
                return None
            pending += target.split("/")[::-1]
    return "/".join(done)


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _as_prefix(inner: str) -> str:
    return f"{inner}/" if inner else ""
