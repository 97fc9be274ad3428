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


def test_classes_can_be_told_apart_by_their_mean_drawings():
    train, test = (open_source("drawings", split=split) for split in ("train", "test"))
    shown = np.stack([train[n].image for n in range(60)]).astype(np.float32)
    means = shown.reshape(6, len(CLASS_NAMES), -1).mean(0)
    asked = np.stack([test[n].image for n in range(40)]).astype(np.float32).reshape(40, -1)
    nearest = ((asked[:, None] - means) ** 2).sum(-1).argmin(1)
    # Chance is a tenth.
    assert np.mean(nearest == test.labels[:40]) > 0.35


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="no split 'validation'; allowed: train, test"):
        open_source("drawings", split="validation")
