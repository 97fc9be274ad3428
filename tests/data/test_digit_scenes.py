"""Scenes of digits: drawn the same everywhere, and with the right boxes, masks and label maps."""

import pickle
import zlib

import numpy as np
import pytest

from lska_jax.data.digit_scenes import DigitSceneMaps, DigitScenes, boxes_of
from lska_jax.data.opening_objects import inspect_objects, open_objects
from lska_jax.data.scenes import ObjectSource
from lska_jax.data.sources import share_examples


def test_scenes_are_the_same_on_every_machine():
    first = [DigitScenes("train")[index] for index in (1, 2, 3)]
    sums = [zlib.crc32(example.image.tobytes()) for example in first]
    assert sums == [3474357631, 2978292520, 3023014061]
    assert first[0].labels.tolist() == [2, 8, 3, 6, 3, 6]


def test_scenes_differ_by_seed_split_and_index():
    images = [
        DigitScenes("train")[1].image,
        DigitScenes("train")[2].image,
        DigitScenes("test")[1].image,
        DigitScenes("train", seed=1)[1].image,
    ]
    assert len({image.tobytes() for image in images}) == 4


def test_masks_hold_what_is_seen_and_boxes_are_tight_around_them():
    source = DigitScenes("test")
    overlaps = 0
    for index in range(12):
        example = source[index]
        assert example.masks.sum(0).max(initial=0) <= 1
        for box, mask in zip(example.boxes, example.masks, strict=True):
            x1, y1, x2, y2 = box.astype(int)
            inside = mask[y1:y2, x1:x2]
            assert inside.sum() == mask.sum() > 0
            assert inside[0].any() and inside[-1].any()
            assert inside[:, 0].any() and inside[:, -1].any()
        x1, y1, x2, y2 = example.boxes.T
        meet = (np.maximum.outer(x1, x1) < np.minimum.outer(x2, x2)) & (
            np.maximum.outer(y1, y1) < np.minimum.outer(y2, y2)
        )
        overlaps += (meet.sum() - len(meet)) // 2
    assert overlaps > 3


def test_a_label_map_says_what_the_masks_say():
    objects, maps = DigitScenes("test")[3], DigitSceneMaps("test")[3]
    np.testing.assert_array_equal(objects.image, maps.image)
    for mask, label in zip(objects.masks, objects.labels, strict=True):
        assert (maps.label_map[mask] == label + 1).all()
    assert (maps.label_map[~objects.masks.any(0)] == 0).all()
    assert len(DigitSceneMaps.class_names) == 11


def test_some_scenes_are_empty():
    empty = [
        example for index in range(48) if not len((example := DigitScenes("test")[index]).labels)
    ]
    assert 0 < len(empty) < 12
    assert empty[0].boxes.shape == (0, 4) and empty[0].masks.shape == (0, 128, 128)


def test_scenes_have_the_size_that_their_name_says():
    source = open_objects("digit_scenes:96x64", split="test")
    assert isinstance(source, ObjectSource)
    assert source[0].image.shape == (96, 64, 3)
    assert source.path(7) == "digit_scenes:96x64/test#7"
    assert share_examples(source, open_objects("digit_scenes", split="test"))
    assert not share_examples(source, open_objects("digit_scenes", split="train"))


def test_counts_need_no_drawing():
    for spec in ("digit_scenes", "digit_scenes:32x64:5000"):
        for split in ("train", "test"):
            facts = inspect_objects(spec, split=split)
            source = open_objects(spec, split=split)
            assert facts == (len(source.class_names), len(source))


def test_more_scenes_to_train_on_begin_with_the_same():
    few, more = (open_objects(f"digit_scenes:32x32{n}", split="train") for n in ("", ":5000"))
    assert (len(few), len(more)) == (2048, 5000)
    np.testing.assert_array_equal(few[2047].image, more[2047].image)
    assert more[4999].labels.shape == (len(more[4999].boxes),)
    assert len(open_objects("digit_scenes:32x32:5000", split="test")) == 256
    assert share_examples(few, more)


def test_a_source_of_scenes_is_small_when_it_is_sent_to_a_worker():
    source = DigitScenes("test")
    source[0]
    assert len(pickle.dumps(source)) < 500


def test_what_is_no_scene_is_refused_with_the_reason():
    for spec in ("digit_scenes:64", "digit_scenes:axb", "digit_scenes:64x64:0"):
        with pytest.raises(ValueError, match="HEIGHTxWIDTH"):
            open_objects(spec, split="test")
    with pytest.raises(ValueError, match="at least 32x32"):
        open_objects("digit_scenes:16x64", split="test")
    with pytest.raises(ValueError, match="Did you mean 'digit_scenes'"):
        open_objects("digit_scene", split="test")
    with pytest.raises(ValueError, match="no split 'val'; allowed: train, test"):
        open_objects("digit_scenes", split="val")
    with pytest.raises(IndexError):
        DigitScenes("test")[256]


def test_boxes_around_nothing_are_zero():
    masks = np.zeros((2, 4, 5), bool)
    masks[1, 2, 3] = True
    np.testing.assert_array_equal(boxes_of(masks), [[0, 0, 0, 0], [3, 2, 4, 3]])
