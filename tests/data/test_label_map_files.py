"""Folders of images and label maps: names of classes, and files that are none."""

import os

import numpy as np
import pytest
from PIL import Image

from lska_jax.data.opening_label_maps import open_label_maps
from lska_jax.data.sources import BrokenImage


@pytest.fixture
def root(tmp_path):
    for name in ("images/train", "labels/train"):
        (tmp_path / name).mkdir(parents=True)
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    for name in ("a.png", "\udce9.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images/train" / name)
        Image.fromarray(ids).save(tmp_path / "labels/train" / name)
    return tmp_path


def opened(root):
    return open_label_maps(f"maps:{root}", split="train", num_classes=3)


def test_names_that_are_no_text_are_read_and_shown_escaped(root):
    source = opened(root)
    assert len(source) == 2 and source.path(1).endswith("\\xe9.png")
    assert np.unique(source[1].label_map).tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [b"sky\n\xe9\ndog\n", b"s\0\xff"])
def test_class_names_that_are_no_text_are_refused_with_their_file(root, content):
    (root / "classes.txt").write_bytes(content)
    with pytest.raises(ValueError, match="classes.txt cannot be read as text in UTF-8"):
        opened(root)


def test_a_byte_order_mark_is_no_part_of_a_name(root):
    (root / "classes.txt").write_bytes("sky\ncat\ndog\n".encode("utf-8-sig"))
    assert opened(root).class_names == ("sky", "cat", "dog")


def test_pipes_are_no_images_no_maps_and_no_names(root):
    os.mkfifo(root / "images/train/pipe.png")
    assert len(opened(root)) == 2
    os.mkfifo(root / "classes.txt")
    with pytest.raises(ValueError, match="classes.txt cannot be read"):
        opened(root)


def test_an_id_of_no_class_is_refused_with_its_map(root):
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(root / "labels/train/a.png")
    with pytest.raises(ValueError, match="a.png has the id 7, beyond the 3 classes"):
        opened(root)


def test_a_map_that_became_a_folder_is_a_broken_example(root):
    source = opened(root)
    (root / "labels/train/a.png").unlink()
    (root / "labels/train/a.png").mkdir()
    with pytest.raises(BrokenImage, match="a folder"):
        source[0]
