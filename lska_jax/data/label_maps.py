"""Read a label map: an image file whose pixels are ids of classes, not colours.

Image libraries show such files: two- and four-bit greys are stretched to 255, black and white may
change places, palettes become colours. Here every pixel keeps the number that the file stores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile

from lska_jax.data.image_file import read_image
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.sources import BrokenImage

_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_LARGEST_ID = 65535


def read_label_map(
    data: bytes, *, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "height width"] | UInt16[np.ndarray, "height width"]:
    """Return the ids of a label map: greys of 1, 2, 4, 8 or 16 bits, or indices of a palette.

    Args:
      data: the whole file: PNG, TIFF, BMP, GIF, PGM or PBM.
      max_pixels: the most pixels the file may declare.

    Returns:
      Ids (H, W): uint8, or uint16 for files of more than 8 bits.

    Raises:
      BrokenImage: the file is no image, damaged or too large, holds colours, or is of a format
        that does not keep ids, such as JPEG.
    """
    return read_image(data, _read_ids, max_pixels=max_pixels)


def find_format_fault(image: Image.Image) -> str:
    """Return why an opened image file, whose pixels need not be read, is no label map, or ""."""
    if image.format not in _FORMATS:
        return f"{image.format} does not keep ids; store label maps as PNG"
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        return (
            f"mode {image.mode} holds colours, a label map ids; store it as grey or with a palette"
        )
    return ""


def _read_ids(image: ImageFile.ImageFile) -> np.ndarray:
    if fault := find_format_fault(image):
        raise BrokenImage(fault)
    arguments = image.tile[0].args
    levels = np.asarray(image, np.int64)
    if image.mode in ("1", "L", "I"):
        levels = _restore(levels, image.mode, arguments)
    if levels.size and not 0 <= levels.min() <= levels.max() <= _LARGEST_ID:
        raise BrokenImage(f"its ids run from {levels.min():,} to {levels.max():,}, beyond 16 bits")
    return levels.astype(np.uint16 if image.mode.startswith("I") else np.uint8)


def _restore(levels: np.ndarray, mode: str, arguments: Any) -> np.ndarray:
    """Return what the file stores, from what Pillow's decoder makes of it.

    Args:
      levels: decoded pixels.
      mode: of the decoded image.
      arguments: of the decoder. The first is the layout in the file, such as "L;4I": four bits,
        inverted. That of a PGM is followed by its maximum, which greys are scaled from.
    """
    layout, *others = (arguments,) if isinstance(arguments, str) else arguments
    _, _, packing = str(layout).partition(";")
    white = {"1": 1, "L": 255, "I": _LARGEST_ID}[mode]
    if mode != "I" and "I" in packing:
        levels = white - levels
    if packing[:1] in ("2", "4"):
        # Two bits are stretched by 85, four by 17.
        levels = levels // (white // (2 ** int(packing[0]) - 1))
    elif not packing and len(others) == 1:
        levels = np.rint(levels * others[0] / white).astype(np.int64)
    return levels
