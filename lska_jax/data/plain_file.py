"""Read a file of images whole, if it is one: a pipe never ends, and a device has no size."""

import os
import stat

from lska_jax.data.limits import MAX_FILE_BYTES
from lska_jax.data.sources import BrokenImage


def read_plain_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file.

    Raises:
      BrokenImage: it is a pipe, a device or a socket, or larger than any image.
      OSError: it is not there, or cannot be read.
    """
    # A pipe without a writer would be waited for.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImage("it is a pipe, a device or a socket, no plain file")
        check_num_bytes(status.st_size)
        return opened.read()


def check_num_bytes(size: int) -> None:
    """Refuse a file that is larger than any image.

    Raises:
      BrokenImage: naming the size and the limit.
    """
    if size > MAX_FILE_BYTES:
        raise BrokenImage(f"a file of {size:,} bytes is more than the limit of {MAX_FILE_BYTES:,}")
