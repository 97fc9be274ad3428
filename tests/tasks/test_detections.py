"""Detections become COCO's results and numbers, as the reference counts them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lska_jax.data.coco_masks import decode_mask
from lska_jax.data.digit_scenes import DigitScenes
from lska_jax.tasks.coco_metrics import COCO_METRICS, coco_metrics
from lska_jax.tasks.detections import (
    Detections,
    as_found,
    coco_results,
    detection_metrics,
    join_detections,
    paste_masks,
    write_coco_results,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "dense"
TRUTH = json.loads((GOLDEN / "coco_eval.gt.json").read_text())
EXPECTED = json.loads((GOLDEN / "coco_eval.expected.json").read_text())
SCENES = DigitScenes("test", size=(64, 64))


def golden_results(kind: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / f"coco_eval.{kind}.json").read_text())


def perfect(positions: list[int], *, use_masks: bool = True, rows: int = 10) -> Detections:
    """Return what a detector without mistakes finds in scenes, as it comes from the device."""
    size = len(positions)
    batch = Detections(
        position=np.array(positions, np.int32),
        original_size=np.full((size, 2), 64, np.int32),
        boxes=np.zeros((size, rows, 4), np.float32),
        scores=np.zeros((size, rows), np.float32),
        labels=np.zeros((size, rows), np.int32),
        is_found=np.zeros((size, rows), bool),
        masks=np.zeros((size, rows, 28, 28), np.float32) if use_masks else None,
    )
    for row, position in enumerate(positions):
        if position < 0:
            continue
        example = SCENES[position]
        count = len(example.labels)
        batch.boxes[row, :count] = example.boxes
        batch.labels[row, :count] = example.labels
        batch.scores[row, :count] = np.linspace(0.5, 0.9, count)
        batch.is_found[row, :count] = True
        if batch.masks is not None:
            for number in range(count):
                mask, box = example.masks[number], example.boxes[number]
                batch.masks[row, number] = small_mask(mask, box)
    return batch


def small_mask(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box
    rows = (y1 + (np.arange(28) + 0.5) * (y2 - y1) / 28).astype(int)
    columns = (x1 + (np.arange(28) + 0.5) * (x2 - x1) / 28).astype(int)
    return mask[np.ix_(rows, columns)].astype(np.float32)


# --- the twelve numbers


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_twelve_numbers_are_the_references(kind):
    found = coco_metrics(TRUTH, golden_results(kind), kind=kind)
    assert list(found) == EXPECTED["names"] == list(COCO_METRICS)
    np.testing.assert_allclose(list(found.values()), EXPECTED[kind]["stats"], rtol=0, atol=1e-12)


def test_boxes_in_results_for_masks_do_not_change_the_numbers():
    results = golden_results("segm")
    for result in results:
        result["bbox"] = [0.0, 0.0, 1.0, 1.0]
    found = coco_metrics(TRUTH, results, kind="segm")
    np.testing.assert_allclose(list(found.values()), EXPECTED["segm"]["stats"], rtol=0, atol=1e-12)


def test_counting_leaves_annotations_and_results_as_they_are():
    truth, results = copy.deepcopy(TRUTH), golden_results("bbox")
    coco_metrics(truth, results, kind="bbox")
    assert truth == TRUTH and results == golden_results("bbox")


def test_an_object_with_the_id_0_counts_and_so_does_one_without_area_and_iscrowd():
    box = [1.0, 2.0, 8.0, 9.0]
    truth = {
        "images": [{"id": 5, "height": 20, "width": 20}],
        "categories": [{"id": 3, "name": "it"}],
        "annotations": [{"id": 0, "image_id": 5, "category_id": 3, "bbox": box}],
    }
    result = {"image_id": 5, "category_id": 3, "bbox": box, "score": 0.5}
    found = coco_metrics(truth, [result], kind="bbox")
    assert found["AP"] == pytest.approx(1.0) and found["AR1"] == 1.0
    # There is nothing of middle or large size to find.
    assert found["APm"] == found["ARl"] == -1


def test_nothing_found_is_zero():
    found = coco_metrics(TRUTH, [], kind="bbox")
    assert found["AP"] == found["AR100"] == 0


def test_results_of_other_images_are_refused():
    stray = [{"image_id": 12345, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}]
    with pytest.raises(ValueError, match=r"\[12345\]"):
        coco_metrics(TRUTH, stray, kind="bbox")


# --- from the device to results


def test_a_detector_without_mistakes_has_an_ap_of_one():
    total: Any = perfect(list(range(32)))
    for start in range(32, 256, 32):
        total = join_detections(total, perfect(list(range(start, start + 32))))
    metrics = detection_metrics(total, SCENES, use_masks=True)
    assert metrics["box_AP"] == pytest.approx(1.0)
    # Masks of 28 x 28 are drawn a little too coarse for the largest digits.
    assert metrics["mask_AP"] > 0.95
    assert len(metrics) == 24


def test_the_order_of_batches_changes_nothing_and_rows_for_no_image_count_nothing():
    first, second = perfect([0, 1, -1]), perfect([2, 3, 4])
    one, other = join_detections(first, second), join_detections(second, first)
    assert sorted(one) == sorted(other) == [0, 1, 2, 3, 4]
    assert coco_results(one, SCENES, kind="segm") == coco_results(other, SCENES, kind="segm")


def test_an_image_counts_once():
    with pytest.raises(ValueError, match=r"Images \[1\] were evaluated twice"):
        join_detections(perfect([0, 1]), perfect([1, 2]))
    with pytest.raises(ValueError, match="in the batch twice"):
        as_found(perfect([3, 3]))


def test_detections_are_in_the_order_of_their_scores():
    (found,) = as_found(perfect([3])).values()
    assert len(found.scores) > 2 and (np.diff(found.scores) <= 0).all()


def test_results_carry_the_ids_of_the_set_and_read_back(tmp_path):
    found = as_found(perfect([3]))
    files = write_coco_results(tmp_path / "eval", found, source=SCENES, use_masks=True)
    assert [file.name for file in files] == ["bbox.json", "segm.json"]
    boxes, masks = (json.loads(file.read_text()) for file in files)
    example = SCENES[3]
    assert {result["image_id"] for result in boxes + masks} == {4}
    assert [result["category_id"] for result in boxes] == (example.labels[::-1] + 1).tolist()
    assert "segmentation" not in boxes[0] and "bbox" not in masks[0]
    x, y, width, height = boxes[-1]["bbox"]
    assert [x, y, x + width, y + height] == example.boxes[0].tolist()
    mask = decode_mask(masks[-1]["segmentation"], height=64, width=64)
    assert (mask & example.masks[0]).sum() / (mask | example.masks[0]).sum() > 0.9


def test_masks_are_pasted_as_in_the_reference():
    golden = np.load(GOLDEN / "ops_masks.npz")
    height, width = golden["image_shape"].tolist()
    pasted = paste_masks(golden["probabilities"], golden["boxes"], height=height, width=width)
    expected = np.unpackbits(golden["binary_bits"], axis=-1, count=width).astype(bool)
    # The last box has no height: the reference divides by zero there.
    np.testing.assert_array_equal(pasted[:-1], expected[:-1])
    assert not pasted[-1].any()
