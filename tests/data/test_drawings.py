"""Drawings of CIFAR-10's classes: the same each time, all different, and a source like others."""

import pickle

import numpy as np
import pytest

from lska_jax.data.drawings import CLASS_NAMES
from lska_jax.data.opening import inspect_source, open_source, source_of
from lska_jax.data.sources import share_examples

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"


def test_classes_are_cifar10s_and_come_in_turn():
    test = open_source("drawings", split="test")
    assert test.class_names == CLASS_NAMES == tuple(CIFAR10.split())
    assert np.bincount(test.labels).tolist() == [20] * 10
    assert test[13].label == test.labels[13] == 3
    assert inspect_source("drawings", split="test") == (10, len(test))
    assert test.path(7) == "drawings/test#7" and source_of("drawings") == "drawings"


def test_a_drawing_is_the_same_each_time_and_in_another_process():
    test = open_source("drawings", split="test")
    again = pickle.loads(pickle.dumps(test))
    assert all(np.array_equal(test[n].image, again[n].image) for n in range(len(CLASS_NAMES)))


def test_no_two_drawings_are_equal_whatever_their_split():
    sources = [open_source("drawings", split=split) for split in ("train", "test")]
    images = [source[n].image for source in sources for n in range(30)]
    assert {(image.shape, image.dtype.name) for image in images} == {((64, 64, 3), "uint8")}
    assert len({image.tobytes() for image in images}) == len(images)
    assert not share_examples(*sources) and share_examples(sources[0], sources[0])


def test_things_stand_out_from_their_backgrounds():
    test = open_source("drawings", split="test")
    for n in range(3 * len(CLASS_NAMES)):
        image = test[n].image.astype(float)
        border = np.concatenate([image[:6].reshape(-1, 3), image[:, :4].reshape(-1, 3)])
        middle = image[24:52, 16:48].reshape(-1, 3)
        distance = np.abs(middle[:, None] - border[None, ::8]).sum(-1).min(1)
        assert np.mean(distance > 40) > 0.1, test.path(n)


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="no split 'validation'; allowed: train, test"):
        open_source("drawings", split="validation")
