"""Turn the bytes of an image file into 8-bit RGB pixels, or say why that is impossible.

One path serves training and evaluation: libjpeg-turbo (through simplejpeg) for ordinary JPEG files
and Pillow for everything else (PNG, palettes, transparency, CMYK, 16-bit). The two libraries give
the same pixels for the same JPEG file, so evaluation sees what a Pillow-only reference sees.

Deviations from a plain ``Image.open(...).convert("RGB")``, each with its reason:

* A JPEG with missing or corrupt pixel data is refused. Pillow fills the missing part with grey when
  the end marker is present, and the network would then learn from a half-grey picture. (Damage
  that happens to form valid codes is invisible to every decoder.)
* 16-bit greyscale files are scaled to 8 bits; Pillow clips them, which makes them almost white.

EXIF orientation is ignored and transparency is dropped, both as in the reference.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from lska_jax.data.sources import BrokenImage

_JPEG_START = b"\xff\xd8"
# simplejpeg also accepts CMYK and YCCK, but converts their inks differently from Pillow.
_FAST_COLORSPACES = frozenset({"YCbCr", "RGB", "Gray"})


def decode_rgb(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image file to RGB pixels.

    Args:
      data: the whole file. JPEG is the fast path; every format that Pillow reads is accepted.

    Returns:
      Pixels (H, W, 3) uint8. Greyscale files get three equal channels.

    Raises:
      BrokenImage: the bytes are empty, truncated, corrupt or not an image.
    """
    if not data:
        raise BrokenImage("empty file")
    if data.startswith(_JPEG_START):
        pixels = _decode_ordinary_jpeg(data)
        if pixels is not None:
            return pixels
    return np.asarray(_decode_with_pillow(data))


def _decode_ordinary_jpeg(data: bytes) -> np.ndarray | None:
    """Decode with libjpeg-turbo; None leaves the file to Pillow."""
    try:
        if simplejpeg.decode_jpeg_header(data)[2] not in _FAST_COLORSPACES:
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
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


def _decode_with_pillow(data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _convert_to_rgb(image)
    except MemoryError:
        raise
    # Pillow's format readers raise OSError, SyntaxError, ValueError, struct.error, IndexError and
    # more for broken bytes, so no shorter list would be complete.
    except Exception as error:
        raise BrokenImage(_first_line(error)) from error


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        high_bytes = np.asarray(image) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # Same pixels, without Pillow's warning about a palette with several transparent colours.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _first_line(error: Exception) -> str:
    """Shorten an error to one line without the memory addresses that Pillow puts in it."""
    text = str(error).strip().split("\n")[0]
    if text.startswith("cannot identify image file"):
        return "not an image file"
    return text or type(error).__name__
