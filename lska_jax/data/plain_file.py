"""Read a file whole, if it is one: a pipe never ends, and a device has no size."""

import os
import stat

from lska_jax.data.limits import MAX_FILE_BYTES
from lska_jax.data.sources import BrokenImage

_OTHERS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def read_plain_file(
    path: str | os.PathLike[str], *, max_bytes: int | None = MAX_FILE_BYTES
) -> bytes:
    """Return the content of a file.

    Args:
      path: of the file.
      max_bytes: what is larger is refused; None reads any size.

    Raises:
      BrokenImage: it is a folder, a pipe, a device or a socket, or larger than any image.
      OSError: it is not there, or cannot be read.
    """
    # A pipe without a writer would be waited for.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        kind = next((name for is_kind, name in _OTHERS if is_kind(status.st_mode)), "a device")
        raise BrokenImage(f"it is {kind}, no plain file")
    with open(file, "rb") as opened:
        if max_bytes is not None:
            check_num_bytes(status.st_size, max_bytes)
        return opened.read()


def check_num_bytes(size: int, limit: int = MAX_FILE_BYTES) -> None:
    """Refuse a file that is larger than any image.

    Raises:
      BrokenImage: naming the size and the limit.
    """
    if size > limit:
        raise BrokenImage(f"a file of {size:,} bytes is more than the limit of {limit:,}")
