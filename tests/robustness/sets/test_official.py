"""Official folders and tars of every set, and what is wrong with them."""

import io
import json
import multiprocessing
import operator
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from set_trees import (
    WNIDS,
    read_labels,
    subset_folders,
    wnid_folders,
    write_kind,
    write_tar,
    write_tree,
)

from lska_jax.data.augment import EvalTransform
from lska_jax.data.examples import LabelledImages
from lska_jax.data.loader import eval_batches
from lska_jax.data.sources import Source
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.catalogue import SETS, set_cells
from lska_jax.robustness.sets.label_sets import subset_classes
from lska_jax.robustness.sets.opening import MissingSet, find_missing, open_cell

both_kinds = pytest.mark.parametrize("kind", ["folder", "tar"])
FOG = Cell("imagenet_c", "fog", 3)


# --- labels


@both_kinds
@pytest.mark.parametrize(
    ("cell", "name", "inner"),
    [
        (Cell("imagenet_sketch"), "sketch", ""),
        (Cell("imagenet_sketch"), "ImageNet-Sketch", "sketch/"),
        (FOG, "imagenet-c", "fog/3/"),
        (FOG, "ImageNet_C", "weather/fog/3/"),
        (Cell("imagenet_c_bar", "sparkles", 5), "imagenet-c-bar", "sparkles/5/"),
    ],
    ids=str,
)
def test_folders_named_by_wnid_give_labels_of_the_thousand(kind, cell, name, inner, tmp_path):
    files = wnid_folders("x", [999, 0, 421])
    files = {path.replace("x/", inner, 1): content for path, content in files.items()}
    data = open_cell(cell, data_root=write_kind(kind, tmp_path, name, files))
    assert isinstance(data.source, Source)
    assert read_labels(data.source) == {b"0": 0, b"421": 421, b"999": 999}
    assert data.source.class_names == WNIDS
    assert data.provenance == "official"
    assert str(tmp_path / name) in data.origin


@both_kinds
@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_whole_subset_has_the_labels_of_its_wnids(kind, name, tmp_path):
    root = write_kind(kind, tmp_path, name.replace("_", "-"), subset_folders("top", name))
    data = open_cell(Cell(name), data_root=root)
    labels = subset_classes(name).tolist()
    assert read_labels(data.source) == {b"%d" % label: label for label in labels}


@both_kinds
@pytest.mark.parametrize("part", SETS["imagenet_v2"].parts)
def test_folders_of_v2_are_class_numbers_and_not_sorted_as_text(kind, part, tmp_path):
    folder = {"threshold-0.7": "threshold0.7"}.get(part, part)
    files = {f"{label}/b.jpeg": b"%d" % label for label in (0, 1, 2, 10, 100, 999)}
    name = f"imagenetv2-{folder}-format-val"
    data = open_cell(Cell("imagenet_v2", part), data_root=write_kind(kind, tmp_path, name, files))
    assert [data.source[i].label for i in range(6)] == [0, 1, 2, 10, 100, 999]
    assert all(int(image) == label for image, label in read_labels(data.source).items())


@pytest.mark.parametrize("wrapper", ["imagenet-v2", "ImageNetV2"])
def test_v2_may_lie_in_a_folder_of_its_variants(wrapper, tmp_path):
    folder = f"{wrapper}/imagenetv2-top-images-format-val"
    write_tree(tmp_path, {f"{folder}/7/a.jpeg": b"-"})
    assert open_cell(Cell("imagenet_v2", "top-images"), data_root=tmp_path).source[0].label == 7


@both_kinds
def test_clean_images_in_class_folders(kind, tmp_path):
    files = wnid_folders("val", [3, 5]) | wnid_folders("train", [7])
    write_kind(kind, tmp_path, "imagenet", files)
    assert read_labels(open_cell(Cell("imagenet"), data_root=tmp_path).source) == {b"3": 3, b"5": 5}


# The first three lines of TFDS's list of validation labels.
FIRST_VALIDATION_WNIDS = ("n01751748", "n09193705", "n02105855")
FLAT = {f"ILSVRC2012_val_{n:08}.JPEG": b"%d" % n for n in (1, 2, 3)}


@pytest.mark.parametrize("place", ["ILSVRC2012_img_val.tar", "imagenet/ILSVRC2012_img_val.tar"])
def test_the_validation_archive_of_imagenet_is_read_as_it_is(place, tmp_path):
    write_tar(tmp_path / place, FLAT)
    source = open_cell(Cell("imagenet"), data_root=tmp_path).source
    found = {image: WNIDS[label] for image, label in read_labels(source).items()}
    assert found == dict(zip((b"1", b"2", b"3"), FIRST_VALIDATION_WNIDS, strict=True))


def test_loose_validation_images_get_the_labels_of_their_numbers(tmp_path):
    write_tree(tmp_path / "val", FLAT)
    source = open_cell(Cell("imagenet"), data_root=tmp_path).source
    assert [WNIDS[source[i].label] for i in range(3)] == list(FIRST_VALIDATION_WNIDS)


@pytest.mark.parametrize(
    ("archive", "part"),
    [
        ("noise", "shot_noise"),
        ("blur", "glass_blur"),
        ("weather", "brightness"),
        ("digital", "pixelate"),
        ("extra", "saturate"),
    ],
)
def test_the_five_archives_of_imagenet_c_are_read_as_they_are(archive, part, tmp_path):
    files = wnid_folders(f"{part}/1", [1]) | wnid_folders(f"{part}/2", [2])
    write_tar(tmp_path / f"{archive}.tar", files)
    data = open_cell(Cell("imagenet_c", part, 2), data_root=tmp_path)
    assert read_labels(data.source) == {b"2": 2}
    assert data.origin == f"{tmp_path}/{archive}.tar!{part}/2"


def test_every_corruption_has_an_archive_of_its_own(tmp_path):
    for cell in set_cells("imagenet_c", severities=[1]):
        write_tree(tmp_path, wnid_folders(f"imagenet-c/{cell.part}/1", [0]))
    assert not find_missing(set_cells("imagenet_c", severities=[1]), data_root=tmp_path)


def test_the_data_folder_may_be_the_set_itself(tmp_path):
    write_tree(tmp_path, wnid_folders("imagenet-c/fog/3", [8]))
    assert open_cell(FOG, data_root=tmp_path / "imagenet-c").source[0].label == 8


def test_a_folder_goes_before_a_tar_and_an_empty_folder_behind_it(tmp_path):
    write_tree(tmp_path, wnid_folders("sketch", [1]))
    write_tar(tmp_path / "sketch.tar", wnid_folders("sketch", [2]))
    assert open_cell(Cell("imagenet_sketch"), data_root=tmp_path).source[0].label == 1
    next((tmp_path / "sketch").rglob("*.JPEG")).unlink()
    next((tmp_path / "sketch").glob("n*")).rmdir()
    assert open_cell(Cell("imagenet_sketch"), data_root=tmp_path).source[0].label == 2


@both_kinds
def test_a_source_travels_to_a_spawned_process(kind, tmp_path):
    root = write_kind(kind, tmp_path, "sketch", wnid_folders("sketch", range(5)))
    source = open_cell(Cell("imagenet_sketch"), data_root=root).source
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.starmap(operator.getitem, [(source, i) for i in range(5)])
    assert [record.label for record in there] == [0, 1, 2, 3, 4]


def test_a_source_from_a_tar_carries_only_its_own_cell(tmp_path):
    files = wnid_folders("fog/1", range(900)) | wnid_folders("fog/3", [4])
    write_tar(tmp_path / "weather.tar", files)
    source = open_cell(FOG, data_root=tmp_path).source
    # The wnids alone take 15 kB; the other 900 members would add 40 kB.
    assert len(pickle.dumps(source)) < 20_000


def test_paths_name_the_file_or_the_member(tmp_path):
    write_tree(tmp_path, wnid_folders("sketch", [1]))
    source = open_cell(Cell("imagenet_sketch"), data_root=tmp_path).source
    assert Path(source.path(0)).read_bytes() == b"1"
    write_tar(tmp_path / "weather.tar", wnid_folders("fog/3", [1]))
    source = open_cell(FOG, data_root=tmp_path).source
    assert source.path(0) == f"{tmp_path}/weather.tar!fog/3/{WNIDS[1]}/a.JPEG"
    with pytest.raises(IndexError, match="0 to 0"):
        source[1]


# --- ImageNet-O and ReaL


@both_kinds
def test_images_of_o_have_no_label_that_means_anything(kind, tmp_path):
    root = write_kind(kind, tmp_path, "imagenet-o", subset_folders("imagenet-o", "imagenet_o"))
    data = open_cell(Cell("imagenet_o"), data_root=root)
    assert set(read_labels(data.source).values()) == {0}
    assert data.extra["is_ood"].all() and len(data.extra["is_ood"]) == len(data.source) == 200


def write_real(root: Path, **sets) -> None:
    label_sets = [[] for _ in range(50_000)]
    for name, labels in sets.items():
        label_sets[int(name[1:]) - 1] = labels
    (root / "real.json").write_text(json.dumps(label_sets))


REAL_IMAGES = {f"imagenet/val/{WNIDS[5]}/ILSVRC2012_val_{n:08}.JPEG": b"%d" % n for n in (3, 293)}


def test_real_labels_follow_the_numbers_of_the_files(tmp_path):
    write_tree(
        tmp_path, REAL_IMAGES | {f"imagenet/val/{WNIDS[2]}/ILSVRC2012_val_00050000.JPEG": b"-"}
    )
    write_real(tmp_path, n3=[5, 999, 0], n50000=[2])
    data = open_cell(Cell("imagenet_real"), data_root=tmp_path)
    assert [data.source[i].image for i in range(3)] == [b"-", b"3", b"293"]
    # The middle image has no label: raters found none that fits.
    expected = [[2, -1, -1], [5, 999, 0], [-1, -1, -1]]
    np.testing.assert_array_equal(data.extra["real_labels"], expected)
    assert data.extra["real_labels"].dtype == np.int32


def test_real_labels_without_the_file_are_missing(tmp_path):
    write_tree(tmp_path, REAL_IMAGES)
    with pytest.raises(MissingSet, match="looked in .* for real.json.*reassessed-imagenet"):
        open_cell(Cell("imagenet_real"), data_root=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[[1]]", "a list of 50,000 lists"), ("{", "no readable JSON"), ('{"a": 1}', "50,000 lists")],
)
def test_a_broken_file_of_real_labels_is_refused(content, message, tmp_path):
    write_tree(tmp_path, REAL_IMAGES)
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_cell(Cell("imagenet_real"), data_root=tmp_path)


@pytest.mark.parametrize("labels", [[1000], [-1], ["3"], 7], ids=str)
def test_real_labels_outside_the_thousand_are_refused(labels, tmp_path):
    write_tree(tmp_path, REAL_IMAGES)
    write_real(tmp_path, n3=labels)
    with pytest.raises(ValueError, match="ILSVRC2012_val_00000003.JPEG the labels.*0..999"):
        open_cell(Cell("imagenet_real"), data_root=tmp_path)


@pytest.mark.parametrize("name", ["cat.JPEG", "ILSVRC2012_val_00050001.JPEG"])
def test_an_image_without_a_number_has_no_real_labels(name, tmp_path):
    write_tree(tmp_path, {f"imagenet/val/{WNIDS[5]}/{name}": b"-"})
    write_real(tmp_path)
    with pytest.raises(ValueError, match=f"{name}' is not the name of a validation image"):
        open_cell(Cell("imagenet_real"), data_root=tmp_path)


# --- what is missing, empty or wrong


def test_a_missing_set_says_where_it_was_looked_for_and_where_to_get_it(tmp_path):
    with pytest.raises(MissingSet) as caught:
        open_cell(Cell("imagenet_a"), data_root=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert f"looked in {tmp_path} for imagenet-a and tars of this name" in message
    assert f"no TFDS set imagenet_a is prepared in {tmp_path}" in message
    assert "ImageNet-A (0.69 GB, 7,500 images a cell)" in message
    assert "https://github.com/hendrycks/natural-adv-examples" in message
    assert "imagenet-a/WNID/*.jpg" in message


def test_a_data_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingSet, match=f"{tmp_path}/nowhere is no folder; expected in it: "):
        open_cell(Cell("imagenet_a"), data_root=tmp_path / "nowhere")


def test_a_size_that_nobody_published_is_not_made_up(tmp_path):
    with pytest.raises(MissingSet, match="ImageNet-C-bar .size not known, 50,000 images"):
        open_cell(Cell("imagenet_c_bar", "sparkles", 1), data_root=tmp_path)


def test_missing_cells_are_holes_and_the_others_are_not(tmp_path):
    write_tree(tmp_path, wnid_folders("imagenet-c/fog/3", [0]))
    write_tree(tmp_path, wnid_folders("sketch", [0]))
    cells = (FOG, FOG._replace(severity=4), Cell("imagenet_sketch"), Cell("imagenet_r"))
    holes = find_missing(cells, data_root=tmp_path)
    assert [hole.cell for hole in holes] == [cells[1], cells[3]]
    assert "ImageNet-C is missing" in holes[0].reason


@both_kinds
def test_an_empty_severity_folder_is_named(kind, tmp_path):
    write_tree(tmp_path, wnid_folders("imagenet-c/fog/2", [0]))
    (tmp_path / "imagenet-c/fog/3").mkdir()
    if kind == "tar":
        import tarfile

        with tarfile.open(tmp_path / "weather.tar", "w") as archive:
            archive.add(tmp_path / "imagenet-c/fog", "fog")
        place = "weather.tar!fog/3"
    else:
        place = "imagenet-c/fog/3"
    with pytest.raises(MissingSet, match=f"imagenet_c/fog/3 is empty.*{place}"):
        open_cell(FOG, data_root=tmp_path)


def test_class_folders_without_a_single_image_are_an_empty_cell(tmp_path):
    write_tree(tmp_path, {f"imagenet-c/fog/3/{WNIDS[0]}/readme.txt": b"-"})
    with pytest.raises(MissingSet, match="is empty: the 1 class folders in .*fog/3 hold no image"):
        open_cell(FOG, data_root=tmp_path)


@both_kinds
def test_a_folder_that_is_no_class_of_imagenet_is_named(kind, tmp_path):
    files = wnid_folders("s", [0]) | {"s/n00000001/a.JPEG": b"-"}
    write_kind(kind, tmp_path, "sketch", files)
    with pytest.raises(
        ValueError, match="1 of 2 folders are not classes of ImageNet-Sketch: 'n00000001'"
    ):
        open_cell(Cell("imagenet_sketch"), data_root=tmp_path)


def test_a_class_outside_the_two_hundred_is_named(tmp_path):
    outside = WNIDS[0]
    write_tree(tmp_path, subset_folders("imagenet-a", "imagenet_a"))
    write_tree(tmp_path, {f"imagenet-a/{outside}/a.jpg": b"-"})
    with pytest.raises(
        ValueError, match=f"1 of 201 folders are not classes of ImageNet-A: '{outside}'"
    ):
        open_cell(Cell("imagenet_a"), data_root=tmp_path)


def test_a_class_number_beyond_999_is_not_one_of_v2(tmp_path):
    name = "imagenetv2-top-images-format-val"
    write_tree(tmp_path, {f"{name}/5/a.jpeg": b"-", f"{name}/1000/a.jpeg": b"-"})
    with pytest.raises(ValueError, match="not classes of ImageNet-V2: '1000'"):
        open_cell(Cell("imagenet_v2", "top-images"), data_root=tmp_path)


def test_what_archive_programs_leave_behind_is_no_class(tmp_path):
    write_tree(tmp_path, wnid_folders("sketch", [0]) | {"sketch/__MACOSX/a.JPEG": b"-"})
    assert len(open_cell(Cell("imagenet_sketch"), data_root=tmp_path).source) == 1


def test_a_truncated_image_is_masked_and_the_others_are_not(tmp_path):
    encoded = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(encoded, "JPEG")
    photo = encoded.getvalue()
    files = {f"sketch/{WNIDS[n]}/a.JPEG": photo[: len(photo) // n] for n in (1, 2)}
    source = open_cell(Cell("imagenet_sketch"), data_root=write_tree(tmp_path, files)).source
    (batch,) = eval_batches(
        source, LabelledImages(EvalTransform(image_size=32)), global_batch_size=2
    )
    assert batch["mask"].tolist() == [True, False]


def test_a_set_with_missing_classes_opens_and_says_so(tmp_path):
    write_tree(tmp_path, subset_folders("imagenet-a", "imagenet_a", without=20))
    data = open_cell(Cell("imagenet_a"), data_root=tmp_path)
    expected = "incomplete: 180 of 7,500 images; 20 of 200 classes have no image"
    assert (len(data.source), data.note) == (180, expected)


def test_a_complete_set_has_no_note(tmp_path):
    folders = [WNIDS[label] for label in subset_classes("imagenet_o")]
    files = {f"o/{wnid}/{n}.jpg": b"" for wnid in folders for n in range(10)}
    write_tar(tmp_path / "imagenet-o.tar", files)
    data = open_cell(Cell("imagenet_o"), data_root=tmp_path)
    assert (len(data.source), data.note) == (2_000, "")


@pytest.mark.parametrize(("name", "suffix"), [("imagenet-r", ".tar.gz"), ("sketch", ".zip")])
def test_an_archive_that_must_be_unpacked_is_pointed_at(name, suffix, tmp_path):
    (tmp_path / f"{name}{suffix}").write_bytes(b"-")
    cell = Cell("imagenet_r" if name == "imagenet-r" else "imagenet_sketch")
    with pytest.raises(MissingSet, match=f"unpack {tmp_path}/{name}{suffix} first"):
        open_cell(cell, data_root=tmp_path)


def test_a_compressed_file_that_is_called_a_tar_is_refused(tmp_path):
    (tmp_path / "imagenet-a.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ValueError, match="gunzip --keep"):
        open_cell(Cell("imagenet_a"), data_root=tmp_path)


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        (Cell("imagenet_b"), {}, "no image set 'imagenet_b'. Did you mean imagenet_"),
        (Cell("imagenet_c", "fog", 6), {}, "ImageNet-C has no cell imagenet_c/fog/6"),
        (Cell("imagenet_a", "fog"), {}, "ImageNet-A has no cell imagenet_a/fog"),
        (FOG, {"provenance": "generated"}, "provenance is 'generated'.*auto, official, tfds"),
        (FOG, {"shapes": ["cat"]}, "shapes choose among cue conflicts"),
    ],
    ids=str,
)
def test_arguments_that_are_not_allowed_are_refused(cell, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        open_cell(cell, data_root=tmp_path, **options)


def test_official_images_are_not_taken_for_tfds(tmp_path):
    write_tree(tmp_path, wnid_folders("sketch", [0]))
    with pytest.raises(MissingSet, match="no TFDS set imagenet_sketch"):
        open_cell(Cell("imagenet_sketch"), data_root=tmp_path, provenance="tfds")
