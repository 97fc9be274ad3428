"""Class folders inside an uncompressed tar, read in place: one file instead of a million.

The headers are scanned once per process for each member's offset and size; an example is then one
``pread``, in any order and from any thread. The index travels with the pickled source, so worker
processes do not scan again. The layout is that of ``class_folders``, also below one
leading folder, as ``tar cf cifar10.tar cifar10/`` makes it.

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
    check_no_class_is_empty,
    is_image_name,
    is_split_name,
    missing_split_message,
    no_class_message,
    show_progress,
)
from lska_jax.data.sources import Record, check_index

# First bytes of a compressed file, its name, and the command that undoes it.
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip", "gunzip --keep"),
    (b"BZh", "bzip2", "bunzip2 --keep"),
    (b"\xfd7zXZ\x00", "xz", "unxz --keep"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd --keep"),
)


class TarSource:
    """The images of class folders inside a tar."""

    def __init__(self, path: Path, *, split: str) -> None:
        """Scan the headers, or reuse this process's earlier scan of the same file.

        Args:
          path: an existing file.
          split: the split to read.

        Raises:
          ValueError: if the file is compressed, no tar or cut short, or if the split is missing,
            there is no class, or a class has no image.
        """
        self._members = TarReader(path)
        images, folders = self._members.index()
        root = _find_root(f"folder:{path}", folders, split)
        self.name = f"folder:{path}" + (f"!{root.rstrip('/')}" if root else "")

        class_names = sorted(name for name in folders[root] if not name.startswith("."))
        if not class_names:
            raise ValueError(no_class_message(self.name))
        label_of = {name: label for label, name in enumerate(class_names)}
        chosen = sorted(
            (member.name, label_of[class_name], member.offset, member.size)
            for member in images
            if member.name.startswith(root)
            and (class_name := _first_folder(member.name[len(root) :])) in label_of
        )
        labels = np.array([label for _, label, _, _ in chosen], np.int32)
        check_no_class_is_empty(
            self.name, class_names, np.bincount(labels, minlength=len(class_names)).tolist()
        )
        # Sorting by full name would put "cat-big/" before "cat/": labels come first.
        order = np.argsort(labels, kind="stable")
        self.class_names = tuple(class_names)
        self._labels = labels[order]
        self._names = PackedNames(chosen[i][0] for i in order)
        self._offsets = np.array([chosen[i][2] for i in order], np.int64)
        self._sizes = np.array([chosen[i][3] for i in order], np.int64)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        """Return the bytes of image ``index`` and its label.

        Raises:
          ValueError: if the archive was replaced or cut short after it was scanned.
        """
        check_index(index, len(self), self.name)
        member = TarMember(
            self._names[int(index)], int(self._offsets[index]), int(self._sizes[index])
        )
        return Record(self._members.read(member), int(self._labels[index]))

    def path(self, index: int) -> str:
        """Return ``archive.tar!member``."""
        check_index(index, len(self), self.name)
        return f"{self._members.path}!{self._names[int(index)]}"


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


def _find_root(name: str, folders: Mapping[str, frozenset[str]], split: str) -> str:
    """Find the folder that holds the classes: "" or a path that ends in "/"."""
    top = folders[""]
    roots = [""]
    if len(top) == 1:
        roots.append(f"{next(iter(top))}/")
    for root in roots:
        if split in folders.get(root, ()) and folders.get(f"{root}{split}/"):
            return f"{root}{split}/"
    for root in roots:
        others = [
            n for n in folders.get(root, ()) if is_split_name(n) and folders.get(f"{root}{n}/")
        ]
        if others:
            raise ValueError(missing_split_message(name, split, others))
    # One top folder that holds folders is a wrapper; one that holds images is a single class.
    return roots[-1] if folders.get(roots[-1]) else ""


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


def _first_folder(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
