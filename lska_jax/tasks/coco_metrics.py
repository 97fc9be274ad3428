"""COCO's twelve numbers for boxes and for masks.

They are counted by faster-coco-eval, which gives those of pycocotools on our golden files, with at
most 1, 10 and 100 detections an image. A cell without a true object, such as large ones where there
are none, is -1.

Two things that go wrong in silence elsewhere are kept from it. The boxes of results for masks are
not passed on: with them the sizes small, medium and large would be those of boxes. And annotations
are numbered anew from 1: a true object with the id 0 would count as not found.

Source: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lska_jax.data.coco_masks import missing_coco_tools

COCO_METRICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)
KINDS = ("bbox", "segm")
_NOT_PASSED_ON = {"bbox": "segmentation", "segm": "bbox"}


def coco_metrics(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, kind: str
) -> dict[str, float]:
    """Return the twelve numbers by name, each in [0, 1], or -1 where there is nothing to find.

    Args:
      annotations: images, annotations and categories, as a COCO instances file holds them.
      results: with image_id, category_id and score each, and for "bbox" a bbox x y width height,
        for "segm" a segmentation in run lengths.
      kind: "bbox" or "segm".

    Raises:
      ValueError: another kind, a result of an image that is not there, or no package to count with.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}.")
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise missing_coco_tools(error) from error
    unknown = {result["image_id"] for result in results} - {
        image["id"] for image in annotations["images"]
    }
    if unknown:
        raise ValueError(
            f"Results of images that are not among the annotations: ids {sorted(unknown)[:5]}."
        )
    truth = COCO(
        {
            "images": list(annotations["images"]),
            "categories": list(annotations["categories"]),
            "annotations": [
                _complete(annotation, number)
                for number, annotation in enumerate(annotations["annotations"], 1)
            ],
        }
    )
    dropped = _NOT_PASSED_ON[kind]
    found = truth.loadRes(
        [{key: result[key] for key in result if key != dropped} for result in results]
    )
    evaluation = COCOeval_faster(truth, found, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    values = [float(value) for value in evaluation.stats[: len(COCO_METRICS)]]
    return dict(zip(COCO_METRICS, values, strict=True))


def _complete(annotation: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return an annotation with what COCO's own files always hold."""
    _, _, width, height = annotation["bbox"]
    return {"area": width * height, "iscrowd": 0, **annotation, "id": number}
