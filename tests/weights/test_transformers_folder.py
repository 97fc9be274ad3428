"""Folders as transformers publishes them: sizes from the arrays, images from the processor."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from published_folders import with_odd_values, write_json
from small_models import small_model, write_safetensors

from lska_jax import create_model
from lska_jax.models.table import Preprocessing
from lska_jax.weights import make_state_dict, read_facts, read_model_folder
from lska_jax.weights.class_names import imagenet_names
from lska_jax.weights.pretrained import arrays_of

PROCESSOR: dict[str, Any] = {
    **{"image_processor_type": "ConvNextImageProcessor", "do_resize": True, "crop_pct": 0.875},
    **{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    **{"do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 3},
    "size": {"shortest_edge": 224},
}
CONFIG = {
    "architectures": ["VanForImageClassification"],
    **{"model_type": "van", "hidden_act": "gelu", "layer_norm_eps": 1e-5},
    "id2label": {str(number): name for number, name in enumerate("abcdef")},
}
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875)


@pytest.fixture(scope="module")
def model():
    return small_model("lka", layer_norm_epsilon=1e-5)


@pytest.fixture
def folder(tmp_path, model):
    folder = tmp_path / "van"
    folder.mkdir()
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "preprocessor_config.json", PROCESSOR)
    weights = make_state_dict(model, naming="hugging_face")
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def test_the_folder_alone_makes_the_same_model(folder, model):
    facts, arrays = read_model_folder(folder)
    assert facts.config == model.config
    assert facts.preprocessing == IMAGENET and facts.class_names == tuple("abcdef")
    assert facts.source["layout"] == "transformers"
    assert all(np.array_equal(array, arrays[p]) for p, array in arrays_of(model).items())
    assert create_model(pretrained=folder).preprocessing == IMAGENET


def test_labels_that_only_count_are_none(folder):
    labels = {str(number): f"LABEL_{number}" for number in range(6)}
    write_json(folder / "config.json", {**CONFIG, "id2label": labels})
    assert read_facts(folder).class_names is None


def test_imagenets_names_spelt_with_all_their_words_are_imagenets(folder):
    model = small_model("lka", num_classes=1000)
    weights = make_state_dict(model, naming="hugging_face")
    write_safetensors(folder / "model.safetensors", weights)
    labels = {str(n): f"{name}, another word" for n, name in enumerate(imagenet_names())}
    write_json(folder / "config.json", {**CONFIG, "id2label": labels})
    facts = read_facts(folder)
    assert facts.class_names == imagenet_names()
    # VAN's copies state a preprocessing with which these weights were not trained.
    assert facts.preprocessing == Preprocessing()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": 224}, (224, 256, "center")),
        ({"size": {"shortest_edge": 384}}, (384, 384, "squash")),
        ({"crop_pct": None}, (224, 256, "center")),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}},
            (224, 224, "squash"),
        ),
        ({"image_processor_type": "ViTFeatureExtractor", "size": 224}, (224, 224, "squash")),
        (
            {
                **{"image_processor_type": "DeiTImageProcessor", "size": 256},
                **{"do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            },
            (224, 256, "squash"),
        ),
        (
            {
                **{"image_processor_type": "BitImageProcessor", "do_center_crop": True},
                **{"size": {"shortest_edge": 235}, "crop_size": 224},
            },
            (224, 235, "center"),
        ),
    ],
)
def test_a_size_means_what_the_processor_makes_of_it(folder, changes, expected):
    write_json(folder / "preprocessor_config.json", {**PROCESSOR, **changes})
    prepared = read_facts(folder).preprocessing
    resized = int(prepared.image_size / prepared.crop_pct)
    assert (prepared.image_size, resized, prepared.crop_mode) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_normalize": False}, "do_normalize off"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0"),
        ({"resample": 1}, "resample=1; allowed: 2"),
        ({"size": {"height": 224, "width": 192}, "image_processor_type": "ViT"}, "is no square"),
        ({"image_processor_type": "ViTImageProcessor"}, "cuts nothing out"),
        ({"size": {"shortest_edge": "x"}}, "is no square"),
    ],
)
def test_images_that_are_prepared_otherwise_are_refused(folder, changes, message):
    write_json(folder / "preprocessor_config.json", {**PROCESSOR, **changes})
    with pytest.raises(ValueError, match=message):
        read_facts(folder)


@pytest.mark.parametrize(
    ("kind", "interpolation", "resized"),
    [
        ("ViTFeatureExtractor", "bilinear", 224),
        ("DeiTFeatureExtractor", "bicubic", 256),
        ("PvtImageProcessor", "bicubic", 224),
        # That of the model: VAN has ConvNeXt's.
        (None, "bicubic", 256),
    ],
)
def test_what_a_processor_leaves_out_is_its_own_default(folder, kind, interpolation, resized):
    kept = ("image_mean", "image_std", *([] if kind and kind.startswith("DeiT") else ["size"]))
    stated = {name: PROCESSOR[name] for name in kept} | {"feature_extractor_type": kind}
    if "size" in stated:
        stated["size"] = 224
    write_json(folder / "preprocessor_config.json", stated)
    prepared = read_facts(folder).preprocessing
    assert prepared.interpolation == interpolation
    assert int(prepared.image_size / prepared.crop_pct) == resized


def test_a_processor_that_states_too_little_is_refused(folder):
    write_json(folder / "preprocessor_config.json", {"resample": 3})
    with pytest.raises(ValueError, match="does not state image_mean, image_std, size"):
        read_facts(folder)


def test_without_a_processor_the_import_by_tag_is_named(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"no preprocessor_config\.json.*--weights TAG"):
        read_facts(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "resnet"}, "model_type is 'resnet'; allowed: "),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"id2label": {"0": "a", "7": "b"}}, "do not have the numbers from 0 on"),
        ({"id2label": {"0": "a"}}, "1 labels for 6 classes"),
    ],
)
def test_another_network_is_refused_with_the_files_name(folder, changes, message):
    write_json(folder / "config.json", {**CONFIG, **changes})
    with pytest.raises(ValueError, match=message) as refusal:
        read_facts(folder)
    assert str(folder / "config.json") in str(refusal.value)


def test_weights_in_parts_are_read_through_their_index(folder, model):
    weights = make_state_dict(model, naming="hugging_face")
    (folder / "model.safetensors").unlink()
    places = {}
    for number, names in enumerate((list(weights)[::2], list(weights)[1::2]), 1):
        part = f"model-0000{number}-of-00002.safetensors"
        write_safetensors(folder / part, {name: weights[name] for name in names})
        places |= dict.fromkeys(names, part)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    arrays = read_model_folder(folder)[1]
    assert all(np.array_equal(array, arrays[p]) for p, array in arrays_of(model).items())


@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("file", "record"), [("config.json", CONFIG), ("preprocessor_config.json", PROCESSOR)]
)
def test_odd_values_anywhere_are_taken_or_refused_with_the_folders_name(folder, file, record, step):
    refused = 0
    for changed in itertools.islice(with_odd_values(record), 0, None, step):
        write_json(folder / file, changed)
        try:
            read_facts(folder)
        except ValueError as error:
            assert str(folder) in str(error)
            refused += 1
    assert refused > 50 / step
