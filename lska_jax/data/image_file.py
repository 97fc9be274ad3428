"""Open image files with Pillow: one limit on their size, and one error for all that is wrong."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageFile

from lska_jax.data.sources import BrokenImage

OUT_OF_MEMORY = "decoding it takes more memory than there is"

# Encapsulated PostScript is a program; Pillow would run Ghostscript on it.
_NOT_READ = frozenset({"EPS"})

T = TypeVar("T")


def read_image(data: bytes, convert: Callable[[ImageFile.ImageFile], T], *, max_pixels: int) -> T:
    """Open an image file, check its size, decode it and convert it.

    Args:
      data: the whole file.
      convert: takes the opened image, not loaded yet.
      max_pixels: the most pixels it may declare.

    Returns:
      What ``convert`` returns.

    Raises:
      BrokenImage: the file is no image or too large, or cannot be decoded or converted.
    """
    try:
        with _open(io.BytesIO(data)) as image:
            check_num_pixels(image.height, image.width, max_pixels=max_pixels)
            return convert(image)
    except BrokenImage:
        raise
    except (MemoryError, OverflowError) as error:
        raise BrokenImage(OUT_OF_MEMORY) from error
    # Pillow's format readers raise OSError, SyntaxError, ValueError, struct.error, IndexError and
    # more for broken bytes, so no shorter list would be complete.
    except Exception as error:
        raise BrokenImage(_first_line(error)) from error


def read_header(path: Path, convert: Callable[[Image.Image], T]) -> T | None:
    """Return what ``convert`` makes of an image file whose pixels are not read.

    None if there is no such file, or it cannot be opened; reading it whole says why.
    """
    try:
        if path.is_file():
            with Image.open(path) as image:
                return convert(image)
    except Exception:
        # As in ``read_image``, no shorter list would be complete.
        return None
    return None


def check_num_pixels(height: int, width: int, *, max_pixels: int) -> None:
    """Refuse an image without pixels, or with too many.

    Raises:
      BrokenImage: naming its size and the limit.
    """
    if height < 1 or width < 1:
        raise BrokenImage(f"{width} x {height} pixels hold nothing")
    if height * width > max_pixels:
        raise BrokenImage(
            f"{width:,} x {height:,} pixels are more than the limit of {max_pixels:,}"
        )


def _open(file: io.BytesIO) -> ImageFile.ImageFile:
    """Open as ``Image.open`` does, without its limits on size: a warning, then an error."""
    start = file.read(16)
    for load_formats in (Image.preinit, Image.init):
        load_formats()
        for name in Image.ID:
            if name in _NOT_READ:
                continue
            factory, accept = Image.OPEN[name]
            try:
                is_accepted = accept is None or accept(start)
                # A text says why a file of this format cannot be read.
                if is_accepted and not isinstance(is_accepted, str):
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue
    raise BrokenImage("not an image file")


def _first_line(error: Exception) -> str:
    """Shorten an error to one line."""
    return str(error).strip().split("\n")[0] or type(error).__name__
