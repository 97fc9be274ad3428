"""Pairs of images and label maps: layouts, splits, and everything that does not fit, by name."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from lska_jax.data.decode import upright_pixels_of
from lska_jax.data.label_map_reader import EvalLabelMaps, TrainLabelMaps
from lska_jax.data.opening_label_maps import inspect_label_maps, open_label_maps
from lska_jax.data.scenes import PixelLabels
from lska_jax.data.sources import BrokenImage


def write(root, name, *, size=(6, 8), ids=(0, 1), folder="labels", mode="L"):
    """Write one pair; ids fill the label map in turn."""
    image, label_map = root / "images" / name, root / folder / name
    for path in (image, label_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(image.with_suffix(".jpg"))
    values = np.resize(np.array(ids, np.uint8), size)
    Image.fromarray(values).convert(mode).save(label_map.with_suffix(".png"))


def opened(root, *, split="train", kind="maps", num_classes=2):
    return open_label_maps(f"{kind}:{root}", split=split, num_classes=num_classes)


def test_files_of_one_name_are_a_pair_at_any_depth_and_in_slices(tmp_path):
    for name in ("train/a", "train/deep/b", "train/deep/c", "train/d", "val/e"):
        write(tmp_path, name, ids=(0, 1, 255))
    source = opened(tmp_path)
    assert len(source) == 4 and source.class_names == ("class 0", "class 1")
    assert source.path(1).endswith("images/train/d.jpg")
    assert set(np.unique(source[0].label_map)) == {0, 1, 255}
    assert np.array_equal(source.sizes, [[6, 8]] * 4)
    assert len(opened(tmp_path, split="validation")) == 1
    halves = [opened(tmp_path, split=s) for s in ("train[:50%]", "train[50%:]")]
    paths = [{half.path(i) for i in range(len(half))} for half in halves]
    assert len(paths[0]) == len(paths[1]) == 2 and not paths[0] & paths[1]
    (tmp_path / "classes.txt").write_text("sky\nsea\nland\n")
    assert inspect_label_maps(f"maps:{tmp_path}", split="train", num_classes=2) == (3, 4)


def test_ade20k_counts_from_one_and_zero_is_no_class(tmp_path):
    write(tmp_path, "training/a", ids=(0, 1, 150), folder="annotations")
    source = opened(tmp_path, kind="ade20k")
    assert len(source.class_names) == 150
    assert np.unique(source[0].label_map).tolist() == [0, 149, 255]
    write(tmp_path, "validation/b", ids=(151,), folder="annotations")
    with pytest.raises(ValueError, match=r"b\.png has the id 151, beyond the 150 classes"):
        opened(tmp_path, split="validation", kind="ade20k")


@pytest.mark.parametrize("value", [255, 256, 257, 65535])
def test_no_id_of_16_bits_is_taken_for_another(tmp_path, value):
    write(tmp_path, "training/a", folder="annotations")
    path = tmp_path / "annotations/training/a.png"
    Image.fromarray(np.full((6, 8), value, np.uint16)).save(path)
    with pytest.raises(ValueError, match=rf"a\.png has the id {value}, beyond the 150 classes"):
        opened(tmp_path, kind="ade20k")


def test_more_classes_than_ids_of_8_bits_are_refused(tmp_path):
    write(tmp_path, "a")
    assert len(opened(tmp_path, num_classes=255).class_names) == 255
    with pytest.raises(ValueError, match="256 classes are asked for, and ids of 8 bits"):
        opened(tmp_path, num_classes=256)


def test_two_files_that_differ_in_their_suffix_are_no_pair(tmp_path):
    write(tmp_path, "a")
    Image.new("RGB", (8, 6)).save(tmp_path / "images/a.png")
    with pytest.raises(ValueError, match=r"suffix alone.*\n.*a\.jpg and .*a\.png"):
        opened(tmp_path)


def test_a_turned_photo_has_the_size_and_pixels_that_viewers_show(tmp_path):
    write(tmp_path, "a", size=(8, 6))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, :4] = 255  # the left half of the file is the upper half of the picture
    Image.fromarray(pixels).save(tmp_path / "images/a.jpg", exif=exif, quality=100)
    source = opened(tmp_path)
    assert source.sizes.tolist() == [[8, 6]]
    shown = upright_pixels_of(source[0].image)
    assert shown[:4].min() > 250 and shown[4:].max() < 5


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"size": (8, 6)}, r"bad\.png: 8 x 6 rows and columns, its image has 6 x 8"),
        ({"ids": (0, 2)}, r"bad\.png has the id 2, beyond the 2 classes"),
        ({"mode": "RGB"}, r"bad\.png: mode RGB holds colours"),
    ],
)
def test_label_maps_that_do_not_fit_are_named_when_a_split_is_opened(tmp_path, pair, message):
    write(tmp_path, "train/good")
    write(tmp_path, "train/bad", **pair)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path)


def test_all_label_maps_that_do_not_fit_are_in_one_list_wherever_they_lie(tmp_path):
    for number in range(100):
        write(tmp_path, f"train/{number:02}", ids=(0, 2) if number % 40 == 2 else (0, 1))
    write(tmp_path, "train/50", mode="RGB")
    (tmp_path / "labels" / "train" / "51.png").write_bytes(b"no image")
    with pytest.raises(ValueError) as refusal:
        opened(tmp_path)
    said = [
        line.strip().removeprefix(f"{tmp_path}/labels/train/")
        for line in str(refusal.value).split("\n")
    ]
    assert [line[:6] for line in said[1:]] == ["02.png", "42.png", "50.png", "51.png", "82.png"]
    assert "51.png: not an image file" in said


def test_files_without_a_partner_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no folder .*images; maps:PATH reads"):
        opened(tmp_path)
    write(tmp_path, "train/a")
    (tmp_path / "images" / "train" / "lonely.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no partner of their name:\n.*lonely\.jpg"):
        opened(tmp_path)
    with pytest.raises(ValueError, match="has no split 'test'; it has train"):
        opened(tmp_path, split="test")


def test_sources_that_are_none_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="not the 150 classes of the benchmark"):
        open_label_maps("tfds:scene_parse150", split="train", num_classes=2)
    with pytest.raises(ValueError, match="Did you mean 'ade20k:/data'"):
        open_label_maps("ade20:/data", split="train", num_classes=2)


def test_training_crops_image_and_labels_alike_and_evaluation_keeps_the_labels_size():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 60)).astype(np.uint8)
    example = PixelLabels(np.repeat(labels[..., None] * 255, 3, -1), labels, 3)
    reader = TrainLabelMaps(canvas=(32, 48), bounds=(60, 40), jitter=(1.0, 1.0), most=1.0)
    fields = reader(example, rng)
    assert np.array_equal(fields["image"][..., 0] // 255, fields["label_map"])
    small = TrainLabelMaps(canvas=(64, 64), bounds=(30, 20), jitter=(1.0, 1.0))(example, rng)
    assert small["size"].tolist() == [20, 30]
    assert (small["label_map"][20:] == 255).all() and (small["label_map"][:, 30:] == 255).all()
    evaluated = EvalLabelMaps(canvas=(20, 24), label_canvas=(44, 60), bounds=(30, 20))(example)
    # As wide as the canvas, where the bounds alone would make it 20 x 30.
    assert evaluated["size"].tolist() == [16, 24]
    assert np.array_equal(evaluated["label_map"][:40], labels)
    with pytest.raises(BrokenImage, match="do not fit into the 20 x 20 of segmentation.label_can"):
        EvalLabelMaps(canvas=(20, 24), label_canvas=(20, 20), bounds=(30, 20))(example)
