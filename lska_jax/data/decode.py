"""Turn the bytes of an image file into 8-bit RGB pixels, or say why that is impossible.

One path serves training and evaluation: libjpeg-turbo (through simplejpeg) for ordinary JPEG files
and Pillow for everything else (PNG, palettes, transparency, CMYK, 16-bit). The two libraries give
the same pixels for the same JPEG file, so evaluation sees what a Pillow-only reference sees.

Deviations from a plain ``Image.open(...).convert("RGB")``, each with its reason:

* A JPEG with missing or corrupt pixel data is refused. Pillow fills the missing part with grey when
  the end marker is present, and the network would then learn from a half-grey picture. (Damage
  that happens to form valid codes is invisible to every decoder.)
* Greys of more than 8 bits are scaled by their stated maximum (``data.deep_greys``); Pillow clips
  them, which makes them almost white. What states none is refused.
* One limit on the number of pixels holds for every format; Pillow has one for some of them.

EXIF orientation is ignored and transparency is dropped, both as in the reference.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from lska_jax.data.deep_greys import is_deep_grey, scale_deep_grey
from lska_jax.data.image_file import OUT_OF_MEMORY, check_num_pixels, read_image
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.sources import BrokenImage

_JPEG_START = b"\xff\xd8"
# simplejpeg also accepts CMYK and YCCK, but converts their inks differently from Pillow.
_FAST_COLORSPACES = frozenset({"YCbCr", "RGB", "Gray"})


SHRINKS = (8, 4, 2)
"""By how much a JPEG file can be decoded smaller, instead of whole."""


def decode_rgb(
    data: bytes, *, max_pixels: int = MAX_PIXELS, shrink: int = 1
) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image file to RGB pixels.

    Args:
      data: the whole file. JPEG is the fast path; every format that Pillow reads is accepted.
      max_pixels: the most pixels the file may declare; beyond it nothing is decoded.
      shrink: 1, or one of ``SHRINKS``: libjpeg-turbo then transforms the low frequencies of each
        8 x 8 block alone, to 8 / shrink pixels a side. Files that are left to Pillow come whole.

    Returns:
      Pixels (H, W, 3) uint8; where decoded smaller, sides divided by ``shrink`` and rounded up.
      Greyscale files get three equal channels.

    Raises:
      BrokenImage: the bytes are empty, truncated, corrupt or not an image, the image has more
        pixels than allowed or than fit into memory, or greys without a stated maximum.
    """
    if not data:
        raise BrokenImage("empty file")
    if data.startswith(_JPEG_START):
        pixels = _decode_ordinary_jpeg(data, max_pixels, shrink)
        if pixels is not None:
            return pixels
    return np.asarray(read_image(data, _to_rgb, max_pixels=max_pixels))


def ordinary_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a JPEG file that libjpeg-turbo decodes; None of all others."""
    if not data.startswith(_JPEG_START):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    is_ordinary = colorspace in _FAST_COLORSPACES and height > 0 and width > 0
    return (height, width) if is_ordinary else None


def pixels_of(image: bytes | np.ndarray, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return an image's pixels, decoded if it is a file; see ``decode_rgb``."""
    return decode_rgb(image, max_pixels=max_pixels) if isinstance(image, bytes) else image


def _decode_ordinary_jpeg(data: bytes, max_pixels: int, shrink: int) -> np.ndarray | None:
    """Decode with libjpeg-turbo; None leaves the file to Pillow."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        check_num_pixels(height, width, max_pixels=max_pixels)
        if colorspace not in _FAST_COLORSPACES:
            return None
        if shrink == 1:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        # The smallest of libjpeg-turbo's sizes that is not below these: exactly these.
        return simplejpeg.decode_jpeg(
            data,
            colorspace="RGB",
            min_height=-(-height // shrink),
            min_width=-(-width // shrink),
            min_factor=shrink,
        )
    except BrokenImage:
        raise
    except (MemoryError, OverflowError) as error:
        raise BrokenImage(OUT_OF_MEMORY) from error
    except ValueError as error:
        reason = str(error)
        if _is_data_lost(reason):
            raise BrokenImage(reason) from error
        return None


def _is_data_lost(reason: str) -> bool:
    """Tell from libjpeg's message whether pixels are missing or wrong.

    Stray bytes before a marker are common in photos found on the web and change no pixel; all the
    other "corrupt" messages mean that a part of the picture was made up.
    """
    reason = reason.lower()
    if "extraneous bytes" in reason:
        return False
    return reason.startswith(("premature end", "corrupt jpeg data"))


def _to_rgb(image: Image.Image) -> Image.Image:
    if is_deep_grey(image):
        return Image.fromarray(scale_deep_grey(image)).convert("RGB")
    image.load()
    if image.mode == "P" and "transparency" in image.info:
        # Same pixels, without Pillow's warning about a palette with several transparent colours.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
