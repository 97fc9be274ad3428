"""Read the headers of a tar: bounded, and an error for whatever is damaged.

Python's tarfile reads them. It stops silently at a damaged header in the middle, goes back where a
size is negative, reads as many bytes as a header asks for, and meets damage with many kinds of
errors; what is added here is the answer to that.
"""

import io
import os
import tarfile
from collections.abc import Iterator

from lska_jax.data.class_folders import readable
from lska_jax.data.notes import say_once

# Long names and attributes take a few KiB.
_MAX_HEADER_BYTES = 1 << 16
_BLOCK = 512

# First bytes of a file that is no tar, what it is, and the command that undoes it.
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip", "gunzip --keep"),
    (b"BZh", "bzip2", "bunzip2 --keep"),
    (b"\xfd7zXZ\x00", "xz", "unxz --keep"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd --keep"),
)
_ARCHIVES = (
    (b"PK\x03\x04", "a zip archive", "unzip -q {path} -d {folder}"),
    (b"PK\x05\x06", "an empty zip archive", "unzip -q {path} -d {folder}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {path} -o{folder}"),
    (b"Rar!\x1a\x07", "a rar archive", "unrar x {path} {folder}/"),
)


def read_headers(path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of an uncompressed tar, in their order.

    Raises:
      ValueError: the file is an archive of another kind, compressed, no tar, cut short or damaged;
        it names the file.
    """
    _refuse_packed(path)
    try:
        with _HeaderFile(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            reached = -1
            while (member := archive.next()) is not None:
                # The archive keeps every header it has read; a million of them fill gigabytes.
                archive.members = []  # type: ignore[attr-defined]
                if member.offset <= reached or member.size < 0:
                    raise ValueError(f"the header at byte {member.offset:,} leads back")
                reached = member.offset
                yield member
            file.seek(archive.offset)
            if file.read(_BLOCK).strip(b"\0"):
                raise ValueError(f"the header at byte {archive.offset:,} is damaged")
            # Whole records of zeros follow the end; tars that were joined go on behind them.
            if file.read(_MAX_HEADER_BYTES).strip(b"\0"):
                say_once(
                    f"{readable(path)} goes on behind its end at byte {archive.offset:,}, which is "
                    "not read. Tars that were joined have to be made one with tar --concatenate."
                )
    # tarfile meets damage with TarError, ValueError, OverflowError, MemoryError, RecursionError,
    # KeyError and more, so no shorter list would be complete.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as an uncompressed tar: {reason}. It is none, or damaged: copy "
            "or download it again."
        ) from error


class _HeaderFile(io.BufferedReader):
    """A file of which no more than a header can be read at once."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a header.

        Raises:
          ValueError: it asks for more than any header has.
        """
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {size:,} bytes" if size else "a header without an end")
        return super().read(size)


def _refuse_packed(path: str) -> None:
    with open(path, "rb") as file:
        start = file.read(8)
    for magic, compression, command in _COMPRESSIONS:
        if start.startswith(magic):
            raise ValueError(
                f"{path} is compressed ({compression}), which allows no random access; "
                f"decompress it once with: {command} {path}"
            )
    for magic, kind, command in _ARCHIVES:
        if start.startswith(magic):
            folder = os.path.splitext(path)[0] or f"{path}_unpacked"
            shown = command.format(path=path, folder=folder)
            raise ValueError(
                f"{path} is {kind}, which is not read in place; unpack it once with: {shown}, "
                f"and give the folder {folder}."
            )
