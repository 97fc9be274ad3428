"""Masks as COCO stores them: polygons and run lengths, rasterised and packed by faster-coco-eval.

It is pycocotools with the loops in C++: the same masks and the same metrics on our golden files.
pycocotools itself (2.0.11) warns at every mask that it decodes under NumPy 2, and takes seven times
as long over 500 images of 100 boxes.

Source: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.h
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool

# Run lengths, column by column, beginning with the pixels outside: {"size": [H, W], "counts": text}
RunLengths = dict[str, Any]


def encode_masks(masks: Bool[np.ndarray, "masks height width"]) -> list[RunLengths]:
    """Return masks as compressed run lengths, ready for JSON."""
    # Run lengths go column by column; this layout spares a copy.
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
        from faster_coco_eval import mask
    except ImportError as error:
        raise missing_coco_tools(error) from error
    return mask


def missing_coco_tools(error: ImportError) -> ValueError:
    """Return the error where what reads masks and counts COCO's metrics cannot be imported."""
    return ValueError(
        "Masks and COCO's metrics need the package faster-coco-eval, which cannot be imported "
        f"({error}); install it with: pip install faster-coco-eval"
    )
