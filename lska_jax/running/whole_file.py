"""Write a file whole or not at all: whoever reads it sees the old content or the new one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Put a file in place when the block is over; a block that fails leaves what was there.

    Args:
      path: the file to write or to replace; its folder exists.

    Yields:
      Where to write the content: a path in the same folder, with the same suffix.

    Raises:
      OSError: the content cannot be written or put in place.
    """
    path = Path(path)
    # Two processes that write the same file must not share what they write it to.
    beside = path.with_name(f".{path.stem}.{os.getpid()}.unfinished{path.suffix}")
    try:
        yield beside
        with beside.open("rb") as written:
            # Before the rename: after a power cut the name would otherwise stand for nothing.
            os.fsync(written.fileno())
        os.replace(beside, path)
    except OSError as error:
        # Nobody knows the other name.
        if error.filename == str(beside):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes to a file, whole or not at all; see ``whole_file``.

    Names of files in a text need not be Unicode; what is none is written escaped.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    with whole_file(path) as beside:
        beside.write_bytes(content)
