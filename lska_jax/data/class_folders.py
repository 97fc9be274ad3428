"""Names of files and folders that sources share: which are seen, which are images, how they show.

The layout that class folders have is described in ``folder``.
"""

import os
import re
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm"),
)
# What systems leave among files: macOS in archives, Synology, ext4, Windows.
_SYSTEM_NAMES = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECONDS_BEFORE_PROGRESS = 2.0
# File systems take names of 255 bytes; what is added to a stem has to fit.
_LONGEST_STEM = 180

T = TypeVar("T")


class PackedNames:
    """A read-only list of file names in two buffers.

    ImageNet has 1.28 million names: as a list of strings they cost over 100 MB in each worker and
    seconds to pickle, as one block of bytes a fifth of that and next to nothing.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Pack the names."""
        encoded = [os.fsencode(name) for name in names]
        self._bytes = b"".join(encoded)
        lengths = np.fromiter((len(name) for name in encoded), np.int64, len(encoded))
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        """Return name ``index``, in [0, len)."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._bytes[start : self._ends[index]])


def is_visible(name: str) -> bool:
    """Tell whether a file or folder is one that people see: no dot in front, none of a system."""
    return not name.startswith(".") and name not in _SYSTEM_NAMES


def is_image_name(name: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    """Tell whether a file's name is visible and ends like an image's."""
    return is_visible(name) and name.lower().endswith(suffixes)


def readable(name: str) -> str:
    r"""Return a name that can be written anywhere, on one line.

    Bytes that are no text become ``\xe9``, and so do line feeds and other control characters.
    """
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        # Half a character, as JSON can hold it; no name of a file is like that.
        encoded = name.encode("utf-8", "backslashreplace")
    text = encoded.decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def file_stem(name: str) -> str:
    """Return a name as the start of one of a file of ours: text, and not too long to add to."""
    text, number = readable(name), _LONGEST_STEM
    while len(text[:number].encode()) > _LONGEST_STEM:
        number -= 1
    return text[:number]


def show_progress(items: Iterable[T], name: str, unit: str, total: int | None) -> Iterable[T]:
    """Pass the items on, with a progress line on stderr once it takes more than two seconds."""
    from tqdm import tqdm

    return tqdm(
        items,
        desc=f"listing {readable(name)}",
        unit=f" {unit}",
        total=total,
        delay=_SECONDS_BEFORE_PROGRESS,
        mininterval=1.0,
        leave=False,
    )
