"""Small COCO sets on the disk, for tests to read and to break."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Height and width by id. 5 has a crowd alone, 6 no annotation, 7 is tiny.
IMAGES = {3: (40, 60), 4: (50, 40), 5: (40, 40), 6: (36, 48), 7: (20, 90)}
CATEGORIES = {90: "zebra", 1: "cat", 18: "dog"}
# 12 x 8 pixels of 40 x 40, column by column.
CROWD = {"size": [40, 40], "counts": [0, *[12, 28] * 7, 12, 28 + 32 * 40]}


def annotation(identity: int, image: int, category: int, box: list[float], **more: Any) -> dict:
    x, y, width, height = box
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [polygon],
        **more,
    }


def content() -> dict[str, Any]:
    return {
        "images": [
            {"id": identity, "file_name": f"{identity:04}.png", "height": size[0], "width": size[1]}
            for identity, size in IMAGES.items()
        ],
        "categories": [{"id": identity, "name": name} for identity, name in CATEGORIES.items()],
        "annotations": [
            annotation(11, 4, 90, [4, 6, 20, 10]),
            annotation(12, 3, 18, [10, 5, 30, 20]),
            annotation(13, 3, 1, [0, 0, 8, 8]),
            annotation(14, 5, 1, [0, 0, 8, 12], iscrowd=1, segmentation=CROWD),
            annotation(15, 7, 1, [2, 2, 9, 9]),
        ],
    }


def write_set(root: Path, held: dict[str, Any], *, split: str = "train2017") -> str:
    """Write a set and its images, and return the name of its source."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    file = root / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps(held))
    for image in held["images"]:
        pixels = np.full((*IMAGES[image["id"]], 3), image["id"], np.uint8)
        Image.fromarray(pixels).save(root / split / image["file_name"])
    return f"coco:{root}"
