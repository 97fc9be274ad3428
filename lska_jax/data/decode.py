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

Transparency is dropped. EXIF orientation is ignored by ``decode_rgb``, as timm does, and heeded by
``upright_pixels_of``, which reads the images of segmentors and detectors: mmcv reads with OpenCV,
and boxes and label maps are drawn on what viewers show.
"""

from __future__ import annotations

import struct

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import ExifTags, Image

from lska_jax.data.deep_greys import is_deep_grey, scale_deep_grey
from lska_jax.data.image_file import OUT_OF_MEMORY, check_num_pixels, read_image
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.sources import BrokenImage

_JPEG_START = b"\xff\xd8"
# simplejpeg also accepts CMYK and YCCK, but converts their inks differently from Pillow.
_FAST_COLORSPACES = frozenset({"YCbCr", "RGB", "Gray"})
# EXIF orientations from it on exchange rows and columns.
_TRANSPOSED = 5


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


def upright_pixels_of(
    image: bytes | np.ndarray, *, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image's pixels, decoded and turned as the EXIF orientation of a JPEG says.

    Raises:
      BrokenImage: as ``decode_rgb``.
    """
    if not isinstance(image, bytes):
        return image
    pixels = decode_rgb(image, max_pixels=max_pixels)
    orientation = read_image(image, orientation_of, max_pixels=max_pixels)
    if orientation >= _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened JPEG file, 1 to 8; 1 is as it lies, and all others.

    Of a PNG file Pillow decodes everything to find it, and cameras write none.
    """
    if image.format not in ("JPEG", "MPO"):
        return 1
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (ValueError, TypeError, SyntaxError, OSError, struct.error):
        return 1  # damaged facts about a picture that can be read
    return orientation if 1 <= orientation <= 8 else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of an opened image as ``upright_pixels_of`` has them."""
    size = image.height, image.width
    return size[::-1] if orientation_of(image) >= _TRANSPOSED else size


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
