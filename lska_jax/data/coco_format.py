"""Objects of a source, written as a COCO instances file holds them.

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lska_jax.data.coco_masks import encode_masks
from lska_jax.data.scenes import ObjectImage, ObjectSource


def annotations_of(source: ObjectSource) -> dict[str, Any]:
    """Return images, annotations and categories of a source that has masks.

    Areas are those of the masks; ids of annotations count from 1.

    Args:
      source: each of its examples is read once.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(source)):
        example = source[index]
        height, width = example.size
        image = {"id": source.image_id(index), "file_name": source.path(index)}
        images.append({**image, "height": height, "width": width})
        categories = [source.category_id(int(label)) for label in example.labels]
        for one in _describe(example, categories):
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **one})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": source.category_id(label), "name": name}
            for label, name in enumerate(source.class_names)
        ],
    }


def xywh(box: Sequence[float] | np.ndarray) -> list[float]:
    """Return a box x1 y1 x2 y2 as COCO writes it: the corner, width and height."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def _describe(example: ObjectImage, categories: Sequence[int]) -> list[dict[str, Any]]:
    assert example.masks is not None
    return [
        {
            "category_id": category,
            "bbox": xywh(box),
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": packed,
        }
        for category, box, mask, packed in zip(
            categories, example.boxes, example.masks, encode_masks(example.masks), strict=True
        )
    ]
