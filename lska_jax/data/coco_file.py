"""Read and check a COCO instances file, and keep what training needs in a few arrays.

Semantics are those of mmdetection 2.x: the label of a category is the rank of its id. An annotation
is left out if its box has no area within the image, its stated area is not positive, or its box is
narrower or lower than one pixel; crowds are left out too. They have no effect on the reference's
losses. Images without annotations, and those with a side below 32 pixels, are not trained on, while
images with nothing but crowds are.

Deviation: where masks are read, an annotation is also left out if its segmentation has no area
within the image. The reference trains on it as on an object that is nowhere in its box.

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lska_jax.data.class_folders import PackedNames, readable, show_progress
from lska_jax.data.coco_faults import (
    find_box_fault,
    find_category_fault,
    find_image_fault,
    find_segmentation_fault,
    is_box_usable,
    is_id,
    is_mask_usable,
    reaches_outside,
)
from lska_jax.data.long_lists import list_lines
from lska_jax.data.plain_file import read_plain_file

_LEAST_SIDE = 32


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """The images of a COCO file in its order, and their objects, image by image.

    Attributes:
      path: of the file.
      image_ids: (N,) int64.
      file_names: of the images, as the file has them.
      sizes: (N, 2) int32, heights and widths.
      is_trained_on: (N,) bool, which images have annotations and are not tiny.
      category_ids: in ascending order.
      class_names: of the categories.
      starts: (N + 1,) int64, where each image's objects begin, and where the last one's end.
      boxes: (M, 4) float32, x1 y1 x2 y2.
      labels: (M,) int32, positions in ``category_ids``.
      segmentations: JSON texts of the M segmentations; None where they were not asked for.
      remarks: what was left out, and what reaches beyond its image, a sentence each.
    """

    path: str
    image_ids: np.ndarray
    file_names: PackedNames
    sizes: np.ndarray
    is_trained_on: np.ndarray
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    segmentations: PackedNames | None
    remarks: tuple[str, ...]


def read_coco_file(path: Path, *, use_masks: bool = False) -> CocoFile:
    """Read an instances file; one that has not changed is read once.

    Args:
      path: of the file.
      use_masks: whether segmentations are checked and kept.

    Raises:
      ValueError: it is no instances file, or has faults, each listed with the id.
    """
    status = path.stat()
    return _read_once(path, (status.st_mtime_ns, status.st_size), use_masks)


def load_coco_json(path: Path) -> dict[str, Any]:
    """Return the content of an instances file.

    Raises:
      ValueError: it is no file, no JSON, or has no lists of images, annotations and categories.
    """
    try:
        content = json.loads(read_plain_file(path, max_bytes=None))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(
                f"{path} has no list of {name}; a COCO instances file has images, annotations and "
                "categories."
            )
    return content


@functools.lru_cache(maxsize=4)
def _read_once(path: Path, stamp: tuple[int, int], use_masks: bool) -> CocoFile:
    del stamp
    return _Reading(path, use_masks).result()


class _Reading:
    """One reading of a file: what is found, and what is wrong with it."""

    def __init__(self, path: Path, use_masks: bool) -> None:
        self._path, self._use_masks = path, use_masks
        self._faults: list[str] = []
        self._left_out: list[str] = []
        self._cut_off: list[str] = []

    def result(self) -> CocoFile:
        content = load_coco_json(self._path)
        images = self._by_id(content["images"], "image", ("file_name", "height", "width"))
        categories = self._by_id(content["categories"], "category", ("name",))
        for identity, image in images.items():
            self._note(f"image {identity}", find_image_fault(image))
        for identity, category in categories.items():
            self._note(f"category {identity}", find_category_fault(category))
        self._stop_at_faults()
        category_ids = sorted(categories)
        places = {identity: place for place, identity in enumerate(images)}
        labels = {identity: label for label, identity in enumerate(category_ids)}
        kept = self._check_annotations(content["annotations"], images, labels)
        self._stop_at_faults()
        # Image by image, and within one in the file's order.
        kept.sort(key=lambda annotation: places[annotation["image_id"]])
        counts = np.bincount(
            [places[annotation["image_id"]] for annotation in kept], minlength=len(images)
        )
        sizes = [(image["height"], image["width"]) for image in images.values()]
        annotated = {annotation["image_id"] for annotation in content["annotations"]}
        boxes = np.array([annotation["bbox"] for annotation in kept], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        names = tuple(readable(str(categories[identity]["name"])) for identity in category_ids)
        return CocoFile(
            path=str(self._path),
            image_ids=np.array(list(images), np.int64),
            file_names=PackedNames(str(image["file_name"]) for image in images.values()),
            sizes=np.array(sizes, np.int32).reshape(-1, 2),
            is_trained_on=np.array(
                [
                    identity in annotated and min(size) >= _LEAST_SIDE
                    for identity, size in zip(images, sizes, strict=True)
                ],
                bool,
            ),
            category_ids=tuple(category_ids),
            class_names=names,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=boxes.astype(np.float32),
            labels=np.array([labels[annotation["category_id"]] for annotation in kept], np.int32),
            segmentations=self._pack_segmentations(kept),
            remarks=tuple(self._remarks(len(content["annotations"]))),
        )

    def _by_id(
        self, entries: Iterable[dict[str, Any]], kind: str, keys: tuple[str, ...]
    ) -> dict[int, dict[str, Any]]:
        """Return entries by their id; those without a good one become faults."""
        found: dict[int, dict[str, Any]] = {}
        for number, entry in enumerate(entries):
            identity = entry.get("id")
            missing = [key for key in keys if key not in entry]
            if not is_id(identity):
                self._faults.append(f"{kind} number {number}: its id {identity!r} is no number")
            elif identity in found:
                self._faults.append(f"{kind} {identity}: the same id is given twice")
            elif missing:
                self._faults.append(f"{kind} {identity}: it has no {' and no '.join(missing)}")
            else:
                found[identity] = entry
        return found

    def _check_annotations(
        self,
        annotations: list[dict[str, Any]],
        images: Mapping[int, dict[str, Any]],
        labels: Mapping[int, int],
    ) -> list[dict[str, Any]]:
        """Return what is trained on; faults and what is left out are noted."""
        kept, seen = [], set()
        name = str(self._path)
        for number, annotation in enumerate(
            show_progress(annotations, name, "annotations", len(annotations))
        ):
            identity, of_image, category = map(annotation.get, ("id", "image_id", "category_id"))
            image = images.get(of_image) if is_id(of_image) else None
            where = f"annotation {identity}" if is_id(identity) else f"annotation no. {number}"
            if image is None:
                fault = f"its image {of_image!r} is not in the file"
            elif not is_id(identity):
                fault = f"its id {identity!r} is no number"
            elif identity in seen:
                fault = "the same id is given twice"
            elif not is_id(category) or category not in labels:
                fault = f"its category {category!r} is not in the file"
            else:
                seen.add(identity)
                fault = self._find_fault(annotation, image)
            if image is not None:
                where += f" of {readable(str(image['file_name']))}"
            if fault:
                self._faults.append(f"{where}: {fault}")
            elif not annotation.get("iscrowd") and self._is_usable(
                annotation, images[annotation["image_id"]], where
            ):
                kept.append(annotation)
        return kept

    def _find_fault(self, annotation: dict[str, Any], image: dict[str, Any]) -> str:
        fault = find_box_fault(annotation.get("bbox"), annotation.get("area", 0))
        is_crowd = annotation.get("iscrowd", 0)
        if not fault and (type(is_crowd) not in (int, bool) or not 0 <= is_crowd <= 1):
            fault = f"its iscrowd {is_crowd!r} is neither 0 nor 1"
        if fault or not self._use_masks:
            return fault
        return find_segmentation_fault(
            annotation.get("segmentation"), height=image["height"], width=image["width"]
        )

    def _is_usable(self, annotation: dict[str, Any], image: dict[str, Any], where: str) -> bool:
        """Tell whether an annotation is trained on, and note what is said of it."""
        height, width, box = image["height"], image["width"], annotation["bbox"]
        area = annotation.get("area", box[2] * box[3])
        if not is_box_usable(box, area, height=height, width=width):
            self._left_out.append(f"{where}: bbox {box}")
            return False
        if self._use_masks and not is_mask_usable(
            annotation["segmentation"], height=height, width=width
        ):
            self._left_out.append(f"{where}: its segmentation has no area within the image")
            return False
        if reaches_outside(box, height=height, width=width):
            self._cut_off.append(f"{where}: bbox {box}, the image has {width} x {height} pixels")
        return True

    def _note(self, where: str, fault: str) -> None:
        if fault:
            self._faults.append(f"{where}: {fault}")

    def _pack_segmentations(self, kept: list[dict[str, Any]]) -> PackedNames | None:
        if not self._use_masks:
            return None
        return PackedNames(
            json.dumps(annotation["segmentation"], separators=(",", ":")) for annotation in kept
        )

    def _stop_at_faults(self) -> None:
        if not self._faults:
            return
        count = len(self._faults)
        raise ValueError(
            f"{self._path} has {count} fault{'s' * (count > 1)}. Repair or remove these entries:"
            + list_lines(self._faults)
        )

    def _remarks(self, total: int) -> Iterable[str]:
        if self._left_out:
            yield (
                f"{self._path}: {len(self._left_out)} of {total} annotations have no area within "
                f"their image, or less than a pixel; they are not trained on:"
                + list_lines(self._left_out)
            )
        if self._cut_off:
            yield (
                f"{self._path}: {len(self._cut_off)} of {total} annotations have a box that "
                "reaches beyond its image; what lies outside is cut off:"
                + list_lines(self._cut_off)
            )
