"""COCO sets: what is read, what is left out, and what is refused."""

import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_sets import CROWD, annotation, content, write_set
from PIL import Image

from lska_jax.data.coco_masks import decode_mask, encode_masks
from lska_jax.data.notes import forget_notes
from lska_jax.data.opening_objects import inspect_objects, open_objects
from lska_jax.data.scenes import ObjectSource
from lska_jax.data.sources import BrokenImage, share_examples


@pytest.fixture(autouse=True)
def say_again():
    forget_notes()


def test_labels_are_the_ranks_of_category_ids(tmp_path):
    source = open_objects(write_set(tmp_path, content()), split="train")
    assert isinstance(source, ObjectSource)
    assert source.class_names == ("cat", "dog", "zebra")
    assert [source.category_id(label) for label in range(3)] == [1, 18, 90]
    assert source[0].labels.tolist() == [1, 0] and source[1].labels.tolist() == [2]


def test_boxes_masks_and_pixels_of_an_image_belong_together(tmp_path):
    source = open_objects(write_set(tmp_path, content()), split="train", use_masks=True)
    example = source[1]
    assert source.path(1).endswith("train2017/0004.png") and source.image_id(1) == 4
    assert example.boxes.tolist() == [[4, 6, 24, 16]] and example.size == (50, 40)
    expected = np.zeros((1, 50, 40), bool)
    expected[0, 6:16, 4:24] = True
    np.testing.assert_array_equal(example.masks, expected)
    assert open_objects(f"coco:{tmp_path}", split="train")[1].masks is None


def test_crowds_are_no_objects_and_empty_images_stay(tmp_path):
    source = open_objects(write_set(tmp_path, content()), split="train", use_masks=True)
    assert len(source) == 5
    for index, shape in ((2, (40, 40)), (3, (36, 48))):
        example = source[index]
        assert example.boxes.shape == (0, 4) and example.masks.shape == (0, *shape)


def test_images_without_annotations_and_tiny_ones_are_not_trained_on(tmp_path):
    spec = write_set(tmp_path, content())
    source = open_objects(spec, split="train", is_for_training=True)
    # Of image 5, a crowd alone, the reference trains on the background.
    assert [source.image_id(index) for index in range(len(source))] == [3, 4, 5]
    assert inspect_objects(spec, split="train") == (3, 5)


def test_an_evaluation_compares_with_the_file_as_it_is(tmp_path):
    held = content()
    source = open_objects(write_set(tmp_path, held), split="train")
    assert source.annotations() == held


@pytest.mark.parametrize("name", ["train", "train2017", "Training"])
def test_a_split_is_found_by_its_usual_names(tmp_path, name):
    assert len(open_objects(write_set(tmp_path, content()), split=name)) == 5


def test_images_may_lie_beside_the_file(tmp_path):
    write_set(tmp_path, content())
    (tmp_path / "valid").mkdir()
    for image in (tmp_path / "train2017").iterdir():
        image.rename(tmp_path / "valid" / image.name)
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.rename(tmp_path / "valid" / "_annotations.coco.json")
    source = open_objects(f"coco:{tmp_path}", split="val")
    assert len(source) == 5 and isinstance(source[0].image, bytes)


def test_slices_of_a_split_share_no_image(tmp_path):
    spec = write_set(tmp_path, content())
    parts = [open_objects(spec, split=split) for split in ("train[:60%]", "train[60%:]")]
    whole = open_objects(spec, split="train")
    ids = [[part.image_id(index) for index in range(len(part))] for part in parts]
    assert list(map(len, ids)) == [3, 2] and sorted(sum(ids, [])) == [3, 4, 5, 6, 7]
    assert share_examples(whole, parts[0]) and not share_examples(*parts)
    assert {image["id"] for image in parts[1].annotations()["images"]} == set(ids[1])


def test_a_source_is_sent_to_workers_without_the_file(tmp_path):
    source = open_objects(write_set(tmp_path, content()), split="train", use_masks=True)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[0].masks, source[0].masks)
    assert len(pickle.dumps(source)) < 4000


# --- left out, and said


def test_boxes_without_a_pixel_of_their_image_are_left_out_and_said(tmp_path, capsys):
    held = content()
    held["annotations"] += [
        annotation(21, 3, 1, [70, 5, 5, 5]),
        annotation(22, 3, 1, [5, 5, 0, 5]),
        annotation(23, 3, 1, [5, 5, 4, -2]),
        annotation(24, 3, 1, [5, 5, 0.5, 5]),
        annotation(25, 3, 1, [5, 5, 5, 5], area=0),
        annotation(26, 3, 1, [-3, 5, 5, 5]),
    ]
    source = open_objects(write_set(tmp_path, held), split="train")
    assert source[0].boxes[2:].tolist() == [[-3, 5, 2, 10]]
    left_out, cut_off = capsys.readouterr().err.split("Note: ")[1:]
    assert "instances_train2017.json: 5 of 11 annotations" in left_out
    for identity in range(21, 26):
        assert f"annotation {identity} of 0003.png: bbox" in left_out
    assert "annotation 26" not in left_out and "annotation 26" in cut_off


def test_boxes_that_reach_beyond_their_image_are_kept_and_said(tmp_path, capsys):
    held = content()
    held["annotations"] += [
        annotation(31, 4, 1, [-30, -30, 1000, 1000]),
        annotation(32, 4, 1, [30, 5, 11, 5]),
        annotation(33, 4, 1, [0, 0, 40, 50]),
        # The sum of two numbers that are rounded to hundredths.
        annotation(34, 4, 1, [30.01, 5, 10, 5]),
    ]
    source = open_objects(write_set(tmp_path, held), split="train")
    assert source[1].boxes[1].tolist() == [-30, -30, 970, 970] and len(source[1].boxes) == 5
    (said,) = capsys.readouterr().err.split("Note: ")[1:]
    assert "instances_train2017.json: 2 of 9 annotations have a box that reaches" in said
    assert said.splitlines()[1:] == [
        "  annotation 31 of 0004.png: bbox [-30, -30, 1000, 1000], the image has 40 x 50 pixels",
        "  annotation 32 of 0004.png: bbox [30, 5, 11, 5], the image has 40 x 50 pixels",
    ]


def test_every_box_that_is_left_out_is_listed_where_there_are_many(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = content()
    held["annotations"] += [annotation(100 + n, 3, 1, [70, 5, 5, 5]) for n in range(25)]
    open_objects(write_set(tmp_path, held), split="train")
    assert "... and 5 more; all 25 are in" in capsys.readouterr().err
    (file,) = tmp_path.glob("lska_jax_*/list.txt")
    assert file.read_text().splitlines() == [
        f"annotation {100 + n} of 0003.png: bbox [70, 5, 5, 5]" for n in range(25)
    ]


BACKGROUND = np.zeros((1, 40, 60), bool)
IN_SIGHT = [5, 5, 9, 5, 9, 9]


@pytest.mark.parametrize(
    ("segmentation", "is_kept"),
    [
        ([[5, 5, 5, 5, 5, 5]], False),
        ([[1, 1, 5, 5, 9, 9]], False),
        ([[70, 5, 80, 5, 80, 15], [-9, 5, -1, 5, -1, 15]], False),
        ({"size": [40, 60], "counts": [2400]}, False),
        ({"size": [40, 60], "counts": [1000, 0, 1400]}, False),
        ({"size": [40, 60], "counts": [0, 2400]}, True),
        (encode_masks(BACKGROUND)[0], False),
        (encode_masks(~BACKGROUND)[0], True),
        ([IN_SIGHT], True),
        ([[5, 5, 5, 5, 5, 5], [70, 5, 80, 5, 80, 15], IN_SIGHT], True),
    ],
)
def test_masks_without_a_pixel_of_their_image_are_left_out_and_said(
    tmp_path, capsys, segmentation, is_kept
):
    spec = write_set(tmp_path, broken(segmentation=segmentation))
    source = open_objects(spec, split="train", use_masks=True)
    assert source[0].labels.tolist() == [1] + [0] * is_kept
    assert source[0].masks.any(axis=(1, 2)).all()
    said = capsys.readouterr().err
    fault = "annotation 13 of 0003.png: its segmentation has no area within the image"
    assert (fault in said) != is_kept and ("1 of 5 annotations" in said) != is_kept


def test_masks_without_a_pixel_matter_only_where_masks_are_read(tmp_path, capsys):
    spec = write_set(tmp_path, broken(segmentation=[[5, 5, 5, 5, 5, 5]]))
    assert len(open_objects(spec, split="train")[0].boxes) == 2
    assert not capsys.readouterr().err


def test_a_category_without_a_box_is_said(tmp_path, capsys):
    held = content()
    held["categories"] += [{"id": 91, "name": "yak"}]
    open_objects(write_set(tmp_path, held), split="train")
    assert "1 of 4 categories have no box: yak" in capsys.readouterr().err


def test_a_category_with_boxes_in_tiny_images_alone_is_said_in_training(tmp_path, capsys):
    held = content()
    held["categories"] += [{"id": 91, "name": "yak"}]
    held["annotations"] += [annotation(41, 7, 91, [2, 2, 9, 9])]
    spec = write_set(tmp_path, held)
    open_objects(spec, split="train")
    assert not capsys.readouterr().err
    open_objects(spec, split="train", is_for_training=True)
    assert "1 of 4 categories have no box to train on: yak." in capsys.readouterr().err


def test_a_category_with_left_out_boxes_alone_is_said(tmp_path, capsys):
    held = content()
    held["annotations"][0]["bbox"] = [70, 5, 5, 5]
    open_objects(write_set(tmp_path, held), split="train")
    assert "1 of 3 categories have no box: zebra." in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train[:60%]", "train[60%:]"])
def test_a_category_without_a_box_in_the_slice_is_said(tmp_path, capsys, split):
    source = open_objects(write_set(tmp_path, content()), split=split, is_for_training=True)
    held = {int(label) for index in range(len(source)) for label in source[index].labels}
    missing = [name for label, name in enumerate(source.class_names) if label not in held]
    said = capsys.readouterr().err
    assert f"{split[5:]}: {len(missing)} of 3 categories have no box to train on: " in said
    assert said.endswith(f": {', '.join(missing)}.\n")


# --- refused


def broken(**changes: Any) -> dict[str, Any]:
    """Return a set whose annotation 13 is changed."""
    held = content()
    held["annotations"][2] |= changes
    return held


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (broken(bbox=[1, 2, float("nan"), 4]), r"annotation 13 of 0003.png: its bbox .*nan"),
        (broken(bbox=[1, 2, 3]), "not four finite numbers"),
        (broken(area=float("inf")), "its area inf is no finite number"),
        (broken(image_id=99), "annotation 13: its image 99 is not in the file"),
        (broken(category_id=4), "its category 4 is not in the file"),
        (broken(id=12), "the same id is given twice"),
        (broken(segmentation=[[1, 2, 3, 4]]), "2 points, fewer than 3"),
        (broken(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "no list of finite numbers"),
        (broken(segmentation=[]), "has no polygon"),
        (broken(segmentation=None), "neither polygons nor run lengths"),
        (broken(segmentation=CROWD), r"size \[40, 40\], the image \[40, 60\]"),
        (
            broken(segmentation={"size": [40, 60], "counts": [5, 6]}),
            "11 pixels long, the image 2,400",
        ),
        (broken(segmentation={"size": [40, 60], "counts": "0`"}), "nor compressed text"),
        (broken(segmentation={"size": [40, 60], "counts": "o" * 300_000}), "nor compressed text"),
        (broken(segmentation={"size": [40.0, 60], "counts": [2400]}), r"size \[40.0, 60\]"),
        (broken(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), "at most 1,000,000 from 0"),
        (broken(bbox=[0, 0, 10**400, 3]), "not four finite numbers"),
        (broken(area=10**400), "no finite number"),
        (broken(image_id=[3]), r"its image \[3\] is not in the file"),
        (broken(category_id={}), "its category {} is not in the file"),
        (broken(id=[13]), r"its id \[13\] is no number"),
        (broken(iscrowd="x"), "its iscrowd 'x' is neither 0 nor 1"),
        (broken(iscrowd=1, segmentation=None), "neither polygons nor run lengths"),
    ],
)
def test_what_cannot_mean_what_it_says_is_refused_with_its_id(tmp_path, held, reason):
    with pytest.raises(ValueError, match=reason):
        open_objects(write_set(tmp_path, held), split="train", use_masks=True)


def test_polygons_matter_only_where_masks_are_read(tmp_path):
    spec = write_set(tmp_path, broken(segmentation=[[1, 2, 3, 4]]))
    assert len(open_objects(spec, split="train")) == 5


def test_every_fault_is_listed_those_beyond_a_limit_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = content()
    held["annotations"] += [annotation(100 + n, 99, 1, [1, 1, 4, 4]) for n in range(25)]
    with pytest.raises(ValueError) as refusal:
        open_objects(write_set(tmp_path, held), split="train")
    assert "has 25 faults" in str(refusal.value) and "... and 5 more" in str(refusal.value)
    assert str(refusal.value).count("\n") == 21
    (file,) = tmp_path.glob("lska_jax_*/list.txt")
    assert len(file.read_text().splitlines()) == 25


def test_images_and_categories_are_checked_too(tmp_path):
    held = content()
    held["categories"].append({"id": 1, "name": "again"})
    held["images"][0]["id"] = "three"
    spec = write_set(tmp_path, content())
    write_json(tmp_path, held)
    with pytest.raises(ValueError, match="(?s)'three' is no number.*category 1: the same id"):
        open_objects(spec, split="train")


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("images", {"height": 10**12}, "image 3: its height or width"),
        ("images", {"id": 10**30}, "image number 0: its id"),
        ("images", {"file_name": None}, "image 3: its file_name None is no name"),
        ("images", {"file_name": "\ud800.png"}, "image 3: its file_name"),
        ("categories", {"name": ["zebra"]}, "category 90: its name"),
    ],
)
def test_no_value_of_an_image_or_a_category_ends_in_another_error(tmp_path, kind, changes, reason):
    held = content()
    spec = write_set(tmp_path, held)
    held[kind][0] |= changes
    write_json(tmp_path, held)
    with pytest.raises(ValueError, match=f"instances_train2017.json has(.|\n)*{reason}"):
        open_objects(spec, split="train")


def test_a_pipe_in_place_of_the_file_is_refused_and_one_in_place_of_an_image_is_broken(tmp_path):
    spec = write_set(tmp_path, content())
    image = tmp_path / "train2017" / "0003.png"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(BrokenImage, match="a pipe"):
        open_objects(spec, split="train")[0]
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="instances_train2017.json is no JSON file: it is a"):
        open_objects(spec, split="train")


def test_missing_images_are_listed(tmp_path):
    spec = write_set(tmp_path, content())
    (tmp_path / "train2017" / "0005.png").unlink()
    with pytest.raises(ValueError, match="1 of the 5 images .*\n  0005.png"):
        open_objects(spec, split="train")


def test_images_of_another_size_than_the_file_states_are_listed_when_it_is_opened(tmp_path):
    spec = write_set(tmp_path, content())
    Image.fromarray(np.zeros((60, 40, 3), np.uint8)).save(tmp_path / "train2017" / "0003.png")
    said = r"image 3, .*0003.png: 60 x 40 rows and columns, its annotations are for 40 x 60"
    with pytest.raises(ValueError, match=f"1 of 5 images (.|\n)*{said}"):
        open_objects(spec, split="train")


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": []}', '{"images": 3}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    spec = write_set(tmp_path, content())
    (tmp_path / "annotations" / "instances_train2017.json").write_text(text)
    with pytest.raises(ValueError, match="no JSON file|has no list of"):
        open_objects(spec, split="train")


def test_a_missing_split_or_folder_is_refused(tmp_path):
    spec = write_set(tmp_path, content())
    with pytest.raises(ValueError, match="no split 'val'; splits found: train2017"):
        open_objects(spec, split="val")
    with pytest.raises(ValueError, match="there is no folder"):
        open_objects(f"{spec}/nowhere", split="train")


# --- masks


def test_run_lengths_in_both_forms_give_the_same_mask():
    (packed,) = encode_masks(decode_mask(CROWD, height=40, width=40)[None])
    assert isinstance(packed["counts"], str)
    mask = decode_mask(packed, height=40, width=40)
    np.testing.assert_array_equal(mask, decode_mask(CROWD, height=40, width=40))
    assert mask[:12, :8].all() and mask.sum() == 96


def test_polygons_are_rasterised_as_in_the_reference():
    golden = np.load(Path(__file__).parents[1] / "golden" / "dense" / "ops_masks.npz")
    height, width = golden["image_shape"].tolist()
    expected = np.unpackbits(golden["bitmap_bits"], axis=-1, count=width).astype(bool)
    for polygons, mask in zip(json.loads(str(golden["polygons"])), expected, strict=True):
        np.testing.assert_array_equal(decode_mask(polygons, height=height, width=width), mask)


def write_json(root: Path, held: dict[str, Any]) -> None:

    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(held))
