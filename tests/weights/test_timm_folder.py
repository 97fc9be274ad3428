"""Folders as timm publishes them: what they state is taken, or refused in words."""

import itertools

import numpy as np
import pytest
import toy_family  # noqa: F401  (registers its models)
from published_folders import timm_config, timm_folder, toy_state_dict, with_odd_values, write_json
from small_models import write_safetensors

from lska_jax import create_model
from lska_jax.models.table import Preprocessing
from lska_jax.weights import (
    export_checkpoint,
    import_checkpoint,
    read_facts,
    read_model_folder,
)
from lska_jax.weights.class_names import imagenet_names
from lska_jax.weights.safetensors_file import open_safetensors

STATED = Preprocessing(
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
    image_size=16,
    crop_pct=0.875,
    interpolation="bilinear",
)


@pytest.fixture
def folder(tmp_path):
    return timm_folder(tmp_path / "toy", classes=5)


def test_weights_preprocessing_and_classes_are_those_of_the_folder(folder):
    facts, arrays = read_model_folder(folder)
    assert facts.name == "toy_small" and facts.config.num_classes == 5
    assert facts.preprocessing == STATED and facts.class_names is None
    assert facts.source["layout"] == "timm" and facts.source["tag"] == "toy_small.plain"
    weights = toy_state_dict(5)
    np.testing.assert_array_equal(arrays["classifier/kernel"], weights["fc.weight"].T)
    np.testing.assert_array_equal(
        arrays["stem/kernel"], weights["conv.weight"].transpose(2, 3, 1, 0)
    )


def test_create_model_takes_the_folder_with_other_classes_and_channels(folder):
    assert create_model("toy_small", pretrained=folder).preprocessing == STATED
    model = create_model(pretrained=folder, num_classes=2, in_channels=1)
    assert (model.config.num_classes, model.config.in_channels) == (2, 1)
    assert model.preprocessing.mean == (pytest.approx(0.2),)
    with pytest.raises(ValueError, match="width: asked for 16, the weights have 8"):
        create_model("toy_large", pretrained=folder)


def test_a_squashed_preprocessing_is_kept(tmp_path):
    folder = timm_folder(tmp_path / "toy", classes=5, crop_mode="squash", crop_pct=1.0)
    assert read_facts(folder).preprocessing.crop_mode == "squash"


def test_a_thousand_classes_are_imagenets_and_others_have_the_names_of_the_folder(tmp_path):
    assert read_facts(timm_folder(tmp_path / "a")).class_names == imagenet_names()
    folder = timm_folder(tmp_path / "b", classes=3, label_names=["ant", "bee", "cat"])
    assert read_facts(folder).class_names == ("ant", "bee", "cat")
    by_number = timm_folder(tmp_path / "c", classes=2, label_names={"1": "bee", "0": "ant"})
    assert read_facts(by_number).class_names == ("ant", "bee")


def test_the_older_config_states_all_in_one_place(folder):
    record = timm_config(5)
    record |= record.pop("pretrained_cfg")
    write_json(folder / "config.json", record)
    assert read_facts(folder).preprocessing == STATED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "resnet50"}, "Unknown model 'resnet50'"),
        ({"num_classes": 7}, "states 7 classes, and model.safetensors has a classifier of 5"),
        ({"model_args": {"act_layer": "relu"}}, "model_args have act_layer"),
        ({"model_args": {"global_pool": "max"}}, "global_pool is 'max'"),
        ({"global_pool": "max"}, "global_pool is 'max'"),
        ({"label_names": ["one"]}, "1 labels for 5 classes"),
        ({"pretrained_cfg": {}}, "does not state mean, std, input_size"),
        ({"pretrained_cfg": []}, "pretrained_cfg is no object"),
    ],
)
def test_what_is_not_taken_is_refused_with_the_files_name(folder, change, message):
    write_json(folder / "config.json", {**timm_config(5), **change})
    with pytest.raises(ValueError, match=message) as refusal:
        read_facts(folder)
    assert str(folder / "config.json") in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": [3, 224, 192]}, "is no square"),
        ({"input_size": [3, 10**5, 10**5]}, "image_size must be from 1 to"),
        ({"input_size": [3, 10**9, 10**9]}, "is no number of pixels"),
        ({"mean": "0.5"}, "mean='0.5' must be a list of numbers"),
        ({"std": [0.5, 0.0, 0.5]}, "std must be 3 numbers from"),
        ({"interpolation": "lanczos"}, "interpolation must be one of"),
        ({"crop_mode": "border"}, "crop_mode must be one of"),
        ({"label_offset": 1}, "labels are shifted"),
    ],
)
def test_a_preprocessing_that_is_not_taken_is_refused(tmp_path, change, message):
    folder = timm_folder(tmp_path / "toy", classes=5)
    write_json(folder / "config.json", timm_config(5, **change))
    with pytest.raises(ValueError, match=message):
        read_facts(folder)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_odd_values_anywhere_are_taken_or_refused_with_the_files_name(folder, step):
    record = {**timm_config(5), "model_args": {"img_size": [16, 16], "embed_dim": 8}}
    refused = 0
    for changed in itertools.islice(with_odd_values(record), 0, None, step):
        write_json(folder / "config.json", changed)
        try:
            read_facts(folder)
        except ValueError as error:
            assert str(folder) in str(error)
            refused += 1
    assert refused > 200 / step


def test_arrays_of_another_family_are_refused(folder):
    from small_models import small_state_dict

    write_safetensors(folder / "model.safetensors", small_state_dict())
    with pytest.raises(ValueError, match="holds arrays of van, and toy_small is of toy"):
        read_facts(folder)


def test_a_folder_without_weights_says_what_was_looked_for(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="looked for: model.safetensors, .*pytorch_model"):
        read_facts(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_that_leaves_the_folder_is_refused(folder, name):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ValueError, match="leaves the model folder"):
        read_facts(folder)


def test_the_folder_becomes_one_of_ours_that_is_verified(folder, tmp_path):
    lines: list[str] = []
    facts = import_checkpoint(folder, tmp_path / "out", license="mit", report=lines.append)
    assert read_facts(tmp_path / "out") == facts
    assert facts.preprocessing == STATED and facts.license == "mit"
    assert len(facts.source["file_sha256"]) == 64
    assert "It records no hash" in lines[-1]
    with pytest.raises(ValueError, match="folder of this package already"):
        import_checkpoint(tmp_path / "out", tmp_path / "again")
    with pytest.raises(ValueError, match="weights go with one of the files in it"):
        import_checkpoint(folder, tmp_path / "again", weights="plain")


def test_the_folder_is_exported_as_ours_are(folder, tmp_path):
    export_checkpoint(folder, tmp_path / "out.safetensors")
    stored = open_safetensors(tmp_path / "out.safetensors")
    for name, array in toy_state_dict(5).items():
        np.testing.assert_array_equal(stored[name].read(), array)
