"""Detections on their way from the device to COCO's results.

A detector's ``measure`` returns ``Detections``, its ``add`` is ``join_detections`` and its
``means`` ends in ``detection_metrics``. Masks are pasted on the host while they are joined, since
every original image has a size of its own; what is kept of them are run lengths.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from lska_jax.data.coco_format import xywh
from lska_jax.data.coco_masks import RunLengths, encode_masks
from lska_jax.data.scenes import ObjectSource
from lska_jax.running.whole_file import write_whole
from lska_jax.tasks.coco_metrics import coco_metrics

_THRESHOLD = 0.5


class Detections(NamedTuple):
    """What is found in a batch of B images, at most K objects in each; all of them are arrays.

    Attributes:
      position: (B,) int32, of the image in its source; -1 for rows that stand for no image.
      original_size: (B, 2) int32, height and width of the image as it is stored.
      boxes: (B, K, 4) float32, x1 y1 x2 y2 in pixels of that image.
      scores: (B, K) float32, in [0, 1].
      labels: (B, K) int32.
      is_found: (B, K) bool, which entries are detections.
      masks: (B, K, M, M) float32 in [0, 1], each within its box; None of a detector without masks.
    """

    position: Any
    original_size: Any
    boxes: Any
    scores: Any
    labels: Any
    is_found: Any
    masks: Any = None


class FoundObjects(NamedTuple):
    """What is found in one image, best first.

    Attributes:
      boxes: (N, 4) float32, x1 y1 x2 y2 in pixels.
      scores: (N,) float32.
      labels: (N,) int32.
      masks: N masks of the image's size in run lengths, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[RunLengths] | None


# By position of the image in its source.
FoundInSet = dict[int, FoundObjects]


def join_detections(total: Detections | FoundInSet, part: Detections | FoundInSet) -> FoundInSet:
    """Return the detections of two sets of images as one.

    Args:
      total: of the batches before; of the first one as it came from the device.
      part: of one more batch.

    Raises:
      ValueError: an image is in both.
    """
    joined, more = as_found(total), as_found(part)
    if twice := joined.keys() & more.keys():
        raise ValueError(f"Images {sorted(twice)[:5]} were evaluated twice; each counts once.")
    return joined | more


def as_found(detections: Detections | FoundInSet) -> FoundInSet:
    """Return a batch's detections by image; what is that already is returned as it is."""
    if not isinstance(detections, Detections):
        return detections
    arrays = Detections(*(None if part is None else np.asarray(part) for part in detections))
    found: FoundInSet = {}
    for row, position in enumerate(arrays.position.tolist()):
        if position < 0:
            continue
        if position in found:
            raise ValueError(f"Image {position} is in the batch twice; each counts once.")
        kept = np.flatnonzero(arrays.is_found[row])
        kept = kept[np.argsort(-arrays.scores[row, kept], kind="stable")]
        boxes = arrays.boxes[row, kept].astype(np.float32)
        masks = None
        if arrays.masks is not None:
            height, width = arrays.original_size[row].tolist()
            pasted = paste_masks(
                arrays.masks[row, kept].astype(np.float32), boxes, height=height, width=width
            )
            masks = encode_masks(pasted)
        found[position] = FoundObjects(
            boxes, arrays.scores[row, kept], arrays.labels[row, kept], masks
        )
    return found


def paste_masks(
    masks: Float32[np.ndarray, "objects side side"],
    boxes: Float32[np.ndarray, "objects 4"],
    *,
    height: int,
    width: int,
) -> Bool[np.ndarray, "objects height width"]:
    """Return masks that are given within their boxes as masks of the whole image.

    The centre of each pixel is looked up bilinearly in the small mask, which is zero outside
    itself; 0.5 and more is the object. Boxes without an area give nothing.

    Args:
      masks: probabilities.
      boxes: x1 y1 x2 y2 in pixels of the image.
      height: of the image, in pixels.
      width: of the image, in pixels.
    """
    pasted = np.zeros((len(masks), height, width), bool)
    side = masks.shape[-1]
    for whole, mask, (x1, y1, x2, y2) in zip(pasted, masks, boxes.tolist(), strict=True):
        if not (x2 > x1 and y2 > y1):
            continue
        top, rows = _lookup(y1, y2, height, side)
        left, columns = _lookup(x1, x2, width, side)
        seen = rows @ mask @ columns.T >= _THRESHOLD
        whole[top : top + len(rows), left : left + len(columns)] = seen
    return pasted


def coco_results(
    found: Mapping[int, FoundObjects], source: ObjectSource, *, kind: str
) -> list[dict[str, Any]]:
    """Return detections as COCO's results: ids of the source, boxes or masks, and scores.

    Args:
      found: detections by position in the source.
      source: whose images and classes they are.
      kind: "bbox" or "segm".
    """
    results: list[dict[str, Any]] = []
    for position in sorted(found):
        objects = found[position]
        for number, (box, score, label) in enumerate(
            zip(objects.boxes, objects.scores, objects.labels, strict=True)
        ):
            result: dict[str, Any] = {
                "image_id": source.image_id(position),
                "category_id": source.category_id(int(label)),
                "score": float(score),
            }
            if kind == "bbox":
                result["bbox"] = xywh(box)
            elif objects.masks is not None:
                result["segmentation"] = objects.masks[number]
            results.append(result)
    return results


def detection_metrics(
    found: Mapping[int, FoundObjects], source: ObjectSource, *, use_masks: bool = False
) -> dict[str, float]:
    """Return COCO's twelve numbers of a whole split, as "box_AP" and, with masks, "mask_AP".

    An image that could not be read counts as one in which nothing was found.

    Args:
      found: detections by position in the source.
      source: the split.
      use_masks: whether masks are judged too.
    """
    annotations = source.annotations()
    metrics: dict[str, float] = {}
    for name, kind in [("box", "bbox"), ("mask", "segm")][: 1 + use_masks]:
        results = coco_results(found, source, kind=kind)
        values = coco_metrics(annotations, results, kind=kind)
        metrics |= {f"{name}_{metric}": value for metric, value in values.items()}
    return metrics


def write_coco_results(
    folder: Path,
    found: Mapping[int, FoundObjects],
    source: ObjectSource,
    *,
    use_masks: bool = False,
) -> list[Path]:
    """Write COCO's results files, ``bbox.json`` and, with masks, ``segm.json``.

    Args:
      folder: is made if it is not there.
      found: detections by position in the source.
      source: the split.
      use_masks: whether masks are written too.

    Returns:
      The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("bbox", "segm")[: 1 + use_masks]:
        file = folder / f"{kind}.json"
        write_whole(file, json.dumps(coco_results(found, source, kind=kind)) + "\n")
        written.append(file)
    return written


def _lookup(start: float, stop: float, length: int, side: int) -> tuple[int, np.ndarray]:
    """Return the first pixel that a box may reach, and each pixel's weights of the small mask."""
    first = max(0, math.floor(start) - 1)
    last = min(length, math.ceil(stop) + 1)
    centers = np.arange(first, max(first, last), dtype=np.float32) + np.float32(0.5)
    places = (centers - start) / (stop - start) * np.float32(side) - np.float32(0.5)
    distance = np.abs(places[:, None] - np.arange(side, dtype=np.float32)[None])
    return first, np.maximum(1 - distance, 0)
