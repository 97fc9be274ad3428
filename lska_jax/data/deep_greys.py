"""Greys of more than 8 bits, brought to 8 bits by the maximum that their file states.

| File | Maximum |
|---|---|
| TIFF with ``SMaxSampleValue`` or ``MaxSampleValue`` | that tag; the minimum by its companion |
| unsigned PNG, TIFF and JPEG 2000 of 9 to 16 bits | the largest number of that many bits |
| PGM | its header's, to which Pillow has scaled 65,535 |
| others: signed or 32-bit integers, floating point | none: refused |

Source: TIFF 6.0, sections 8 and 19.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lska_jax.data.sources import BrokenImage

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MIN_IS_WHITE = 258, 262, 0
# Minimum and maximum of any type of numbers, then of unsigned integers.
_LIMIT_TAGS = ((340, 341), (280, 281))


def is_deep_grey(image: Image.Image) -> bool:
    """Tell whether an image has one channel of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def scale_deep_grey(image: Image.Image) -> UInt8[np.ndarray, "height width"]:
    """Return the greys in 0 to 255, white at the stated maximum; what lies beyond is cut off.

    Args:
      image: opened by Pillow, of a mode that begins with I or F.

    Raises:
      BrokenImage: the file states no maximum, or none that is a number above the minimum.
    """
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    low, high = _stated_limits(image, tags)
    levels = np.asarray(image)
    if (low, high) == (0, 65535) and levels.dtype.kind in "iu":
        # The high byte, as Pillow takes it of 16-bit colours.
        greys = (levels >> 8).astype(np.uint8)
    else:
        with np.errstate(invalid="ignore"):
            scaled = (levels.astype(np.float64) - low) * (255 / (high - low))
        greys = np.rint(np.nan_to_num(np.clip(scaled, 0, 255))).astype(np.uint8)
    # Pillow turns inverted greys round at 8 bits only.
    return 255 - greys if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE else greys


def _stated_limits(image: Image.Image, tags: Mapping[int, Any]) -> tuple[float, float]:
    """Return which levels are black and white."""
    for low_tag, high_tag in _LIMIT_TAGS:
        low, high = (_first_number(tags, tag) for tag in (low_tag, high_tag))
        if high is not None:
            low = 0.0 if low is None else low
            if not low < high < math.inf:
                raise BrokenImage(f"it states greys from {low:g} to {high:g}, which is no range")
            return low, high
    if image.mode.startswith("I;16") and image.format in ("PNG", "TIFF", "JPEG2000"):
        return 0.0, 2.0 ** (_first_number(tags, _BITS_PER_SAMPLE) or 16.0) - 1
    if image.format in ("PPM", "PNG") and image.mode == "I":
        return 0.0, 65535.0
    raise BrokenImage(
        f"greys of mode {image.mode} ({image.format}) state no maximum; "
        "save it with 8 or 16 bits, or as TIFF with the tag SMaxSampleValue"
    )


def _first_number(tags: Mapping[int, Any], tag: int) -> float | None:
    value = tags.get(tag)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return None if value is None else float(value)
