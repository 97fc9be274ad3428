"""Cue-conflict stimuli and the shape classes that a model knows."""

import numpy as np
import pytest
from set_trees import write_kind, write_tree

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.cue_conflict import parse_stimulus, shape_groups
from lska_jax.robustness.sets.label_sets import imagenet_wnids, shape_classes
from lska_jax.robustness.sets.opening import open_cell
from lska_jax.weights.class_names import imagenet_names

CUES = Cell("cue_conflict")
SHAPES = tuple(shape_classes())
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STIMULI = {
    f"{shape}/{shape}{n}-{texture}{n + 1}.png": f"{shape} {texture}".encode()
    for n, (shape, texture) in enumerate(
        [("cat", "dog"), ("cat", "clock"), ("dog", "dog"), ("oven", "cat"), ("truck", "car")]
    )
}


def read_stimuli(data) -> dict[bytes, str]:
    names = data.source.class_names
    return {
        data.source[i].image: f"{names[data.source[i].label]} {names[data.extra['texture'][i]]}"
        for i in range(len(data.source))
    }


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("name", ["cue-conflict", "style-transfer-preprocessed-512"])
def test_labels_are_shapes_and_textures_stand_beside_them(kind, name, tmp_path):
    data = open_cell(CUES, data_root=write_kind(kind, tmp_path, name, STIMULI))
    assert read_stimuli(data) == {content: content.decode() for content in STIMULI.values()}
    assert data.source.class_names == SHAPES
    assert data.extra["texture"].dtype == np.int32
    assert data.note == "incomplete: 5 of 1,280 images; 12 of 16 classes have no image"


def test_the_authors_repository_is_read_as_it_is(tmp_path):
    folder = "texture-vs-shape-master/stimuli/style-transfer-preprocessed-512"
    write_tree(tmp_path / folder, STIMULI)
    assert len(open_cell(CUES, data_root=tmp_path).source) == 5


def test_only_stimuli_of_shared_classes_are_kept_and_renumbered(tmp_path):
    write_tree(tmp_path / "cue-conflict", STIMULI)
    data = open_cell(CUES, data_root=tmp_path, shapes=("dog", "truck", "car", "cat"))
    assert data.source.class_names == ("dog", "truck", "car", "cat")
    assert read_stimuli(data) == {b"cat dog": "cat dog", b"dog dog": "dog dog"} | {
        b"truck car": "truck car"
    }
    assert data.note == (
        "shared classes only: dog, truck, car, cat: 3 of 5 stimuli, 2 of them with a conflict"
    )
    assert data.source.path(0).endswith("cat/cat0-dog1.png")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (["cat", "frog"], "no shape class 'frog'; the 16 are: airplane"),
        (["knife"], "no stimulus whose shape and texture are both among knife"),
        ([], "no stimulus whose shape and texture are both among no classes"),
    ],
)
def test_shapes_that_leave_nothing_are_refused(shapes, message, tmp_path):
    write_tree(tmp_path / "cue-conflict", STIMULI)
    with pytest.raises(ValueError, match=message):
        open_cell(CUES, data_root=tmp_path, shapes=shapes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat/cat1.png", "'cat1.png' is no name of a cue-conflict stimulus"),
        ("cat/cat1-frog2.png", "names the texture 'frog', which is none of the 16"),
        ("cat/dog1-cat2.png", "the folder says 'cat', the file's name 'dog'"),
        ("frog/frog1-cat2.png", "1 of 5 folders are not classes of Cue conflict: 'frog'"),
    ],
)
def test_a_stimulus_with_another_name_is_refused(name, message, tmp_path):
    write_tree(tmp_path / "cue-conflict", STIMULI | {name: b"-"})
    with pytest.raises(ValueError, match=message):
        open_cell(CUES, data_root=tmp_path)


def test_the_name_of_a_stimulus_is_its_shape_then_its_texture():
    assert parse_stimulus("airplane10-bicycle2.png") == ("airplane", "bicycle")


# --- the model's classes


def test_cifar_10_shares_seven_shapes():
    groups = shape_groups(CIFAR10)
    meant = {
        name: [CIFAR10[index] for index in classes]
        for name, classes in zip(groups.names, groups.classes, strict=True)
    }
    assert meant == {
        "airplane": ["airplane"],
        "bird": ["bird"],
        "boat": ["ship"],
        "car": ["automobile"],
        "cat": ["cat"],
        "dog": ["dog"],
        "truck": ["truck"],
    }


@pytest.mark.parametrize("names", [imagenet_wnids(), imagenet_names()], ids=["wnids", "words"])
def test_imagenet_has_geirhos_lists(names):
    groups = shape_groups(names)
    assert groups.names == SHAPES
    for name, classes in zip(groups.names, groups.classes, strict=True):
        np.testing.assert_array_equal(classes, shape_classes()[name])


def test_several_classes_may_stand_for_one_shape():
    groups = shape_groups(["Lorry", "pickup_truck", "horse"])
    assert groups.names == ("truck",)
    np.testing.assert_array_equal(groups.classes[0], [0, 1])


def test_plurals_and_some_of_imagenets_classes_are_known():
    groups = shape_groups(["Cats", "n02123394", "tench", "wall clock", "trucks"])
    assert groups.names == ("cat", "clock", "truck")
    # n02123394 is a Persian cat.
    assert [classes.tolist() for classes in groups.classes] == [[0, 1], [3], [4]]


def test_a_model_without_any_of_the_shapes_has_no_groups():
    assert shape_groups(["0", "1", "2"]) == ((), ())
