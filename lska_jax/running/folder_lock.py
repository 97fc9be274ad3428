"""One user of a folder or file at a time: a lock that ends with its process, however that ends.

``flock`` belongs to the open file, not to its name: the kernel takes it back after ``kill -9``, and
nothing has to be cleaned up. The content of the lock file only tells people who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO, Any

LOCK_NAME = ".lock"
_CANNOT_LOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class InUse(ValueError):
    """Somebody else holds the lock."""


def lock_file(file: IO[Any]) -> bool:
    """Lock an open file for as long as it is open.

    Args:
      file: open for writing: network file systems lock no other.

    Returns:
      Whether it is locked; False where its file system has no locks.

    Raises:
      InUse: it is locked already, by another process or by this one.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InUse(f"{file.name} is in use.") from error
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        return False
    return True


def is_in_place(file: IO[Any], path: Path) -> bool:
    """Tell whether an open file is still the one of its name: not deleted, moved or replaced."""
    mine = os.fstat(file.fileno())
    try:
        there = path.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


class FolderLock:
    """Keeps everybody else out of a folder; a context manager.

    Args:
      folder: which is there and can be written.
      what: what the folder is, for messages, as in "run".
      is_holder: False locks nothing: for processes beside the one that writes.

    Attributes:
      is_locked: whether the file system could lock it.
    """

    def __init__(self, folder: str | Path, *, what: str, is_holder: bool = True) -> None:
        self._path = Path(folder).absolute() / LOCK_NAME
        self._what = what
        self._is_holder = is_holder
        self._file: IO[str] | None = None
        self.is_locked = False

    def __enter__(self) -> FolderLock:
        """Lock the folder.

        Raises:
          InUse: another process has it; it is named.
        """
        if not self._is_holder:
            return self
        # Not "w": that would empty what the holder wrote.
        file = self._path.open("a+", encoding="utf-8")
        try:
            self.is_locked = lock_file(file)
        except InUse:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            file.close()
            raise InUse(
                f"The {self._what} in {self._path.parent} is in use by {holder}. Two at once would "
                "write over each other: wait for it, or choose another folder."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the folder back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def check(self) -> None:
        """Make sure that the folder is still where it was locked.

        Raises:
          FileNotFoundError: it was deleted, moved or replaced.
        """
        if self._file is not None and not is_in_place(self._file, self._path):
            raise FileNotFoundError(
                f"The folder {self._path.parent} was deleted, moved or replaced while the "
                f"{self._what} wrote to it; what came after that is lost. If it was moved, the "
                "same command with its new place goes on from the latest checkpoint there."
            )
