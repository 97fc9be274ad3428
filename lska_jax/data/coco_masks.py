"""Masks as COCO stores them: polygons and run lengths, rasterised and packed by pycocotools.

Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.h
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from jaxtyping import Bool

# Run lengths, column by column, beginning with the pixels outside: {"size": [H, W], "counts": text}
RunLengths = dict[str, Any]


def encode_masks(masks: Bool[np.ndarray, "masks height width"]) -> list[RunLengths]:
    """Return masks as compressed run lengths, ready for JSON."""
    # pycocotools reads column by column; this layout spares it a copy of its own.
    columns = np.asarray(masks.transpose(1, 2, 0), np.uint8, order="F")
    return [
        {"size": list(masks.shape[1:]), "counts": packed["counts"].decode("ascii")}
        for packed in _mask_api().encode(columns)
    ]


def decode_mask(segmentation: Any, *, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Rasterise the segmentation of a COCO annotation.

    Args:
      segmentation: a list of polygons, which are merged, or run lengths, compressed or a list.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Raises:
      ValueError: it is none of these, or run lengths of another size; ``coco_checks`` says so
        earlier and by name.
    """
    api = _mask_api()
    if isinstance(segmentation, list):
        parts = api.frPyObjects(segmentation, height, width)
        packed = api.merge(parts)
    elif isinstance(segmentation["counts"], list):
        packed = api.frPyObjects(segmentation, *segmentation["size"])
    else:
        packed = segmentation
    mask = api.decode(packed).astype(bool)
    if mask.shape != (height, width):
        raise ValueError(
            f"A mask of {mask.shape[1]} x {mask.shape[0]} pixels in an image of {width} x {height}."
        )
    return mask


def _mask_api() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        refuse_without_pycocotools(error)
    return mask


def refuse_without_pycocotools(error: ImportError) -> NoReturn:
    """Say how to install what reads masks and counts COCO's metrics.

    Raises:
      ValueError: always.
    """
    raise ValueError(
        f"Masks and COCO's metrics need the package pycocotools, which cannot be imported "
        f"({error}); install it with: pip install pycocotools"
    ) from error
