"""Small networks of every family in folders of timm and of transformers, read back bit for bit."""

import dataclasses

import numpy as np
import pytest
from published_folders import PREPARED, write_json

from lska_jax.models.build import array_shapes
from lska_jax.models.table import families, load_capability, model_entry
from lska_jax.weights import read_model_folder
from lska_jax.weights.safetensors_file import save_safetensors
from lska_jax.weights.state_dict import name_arrays

# Model, its sizes here, and timm's arguments for them.
SMALL = {
    "convnext_tiny": (
        {"dims": (4, 6), "depths": (1, 2)},
        {"dims": [4, 6], "depths": [1, 2]},
    ),
    "deit_tiny_patch16_224": (
        {"dim": 8, "depth": 2, "heads": 2},
        {"embed_dim": 8, "depth": 2, "num_heads": 2},
    ),
    "deit3_small_patch16_224": (
        {"dim": 8, "depth": 1, "heads": 4},
        {"embed_dim": 8, "depth": 1, "num_heads": 4},
    ),
    "swin_tiny_patch4_window7_224": (
        {"dims": (8, 16), "depths": (1, 2), "heads": (2, 4)},
        {"embed_dim": 8, "depths": [1, 2], "num_heads": [2, 4]},
    ),
    "pvt_v2_b0": (
        {"dims": (4, 8, 8, 8), "depths": (1, 1, 2, 1), "heads": (1, 2, 4, 8)},
        {"embed_dims": [4, 8, 8, 8], "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]},
    ),
    "inception_next_tiny": (
        {"dims": (8, 16, 16, 24), "depths": (1, 1, 2, 1)},
        {"dims": [8, 16, 16, 24], "depths": [1, 1, 2, 1]},
    ),
}
TRANSFORMERS = {
    "convnext_tiny": {"model_type": "convnext"},
    "vit_tiny_patch16_224": {"model_type": "vit", "num_attention_heads": 2},
    "deit_tiny_patch16_224": {"model_type": "deit", "num_attention_heads": 2},
    "deit_tiny_distilled_patch16_224": {"model_type": "deit", "num_attention_heads": 2},
    "swin_tiny_patch4_window7_224": {"model_type": "swin", "num_heads": [2, 4]},
    "pvt_v2_b0": {"model_type": "pvt_v2", "num_attention_heads": [1, 2, 4, 8]},
}
PROCESSOR = {
    **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2},
    **{"size": {"height": 224, "width": 224}, "image_processor_type": "ViTImageProcessor"},
}


def small(model: str):
    """Return a small config of a model's family and its arrays, all different."""
    entry = model_entry(model)
    family = families()[entry.family]
    alike = model if model in SMALL else "deit_tiny_patch16_224"
    config = family.config(**{**entry.fields, **SMALL[alike][0], "num_classes": 3})
    rng = np.random.default_rng(0)
    return config, {
        path: rng.uniform(0.5, 1, shape).astype(np.float32)
        for path, shape in array_shapes(config).items()
    }


def write(folder, config, arrays, naming: str, record) -> None:
    save_safetensors(
        folder / "model.safetensors",
        name_arrays(config, arrays, naming=naming),
        metadata={"format": "pt"},
    )
    write_json(folder / "config.json", record)


def assert_read(folder, config, arrays) -> None:
    facts, read = read_model_folder(folder)
    assert dataclasses.asdict(facts.config) == dataclasses.asdict(config)
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(array, arrays[path]) for path, array in read.items())


@pytest.mark.parametrize("model", SMALL)
def test_a_folder_of_timm_with_sizes_of_its_own(tmp_path, model):
    config, arrays = small(model)
    prepared = {name: value for name, value in PREPARED.items() if name != "image_size"}
    record = {
        "architecture": model,
        "num_classes": 3,
        "model_args": {**SMALL[model][1], "num_classes": 3, "in_chans": 3, "img_size": [224, 224]},
        "pretrained_cfg": {**prepared, "input_size": [3, 224, 224]},
    }
    write(tmp_path, config, arrays, load_capability_naming(model), record)
    assert_read(tmp_path, config, arrays)


def test_a_preprocessing_of_images_too_small_for_the_network_is_refused(tmp_path):
    config, arrays = small("convnext_tiny")
    record = {
        **{"architecture": "convnext_tiny", "num_classes": 3},
        "model_args": SMALL["convnext_tiny"][1],
        "pretrained_cfg": {**PREPARED, "input_size": [3, 7, 7]},
    }
    write(tmp_path, config, arrays, "timm", record)
    with pytest.raises(ValueError, match="image_size must be at least 8, got 7"):
        read_model_folder(tmp_path)


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_a_folder_of_transformers_with_sizes_of_its_own(tmp_path, model):
    config, arrays = small(model)
    write_json(tmp_path / "preprocessor_config.json", PROCESSOR)
    write(tmp_path, config, arrays, "hugging_face", {**TRANSFORMERS[model], "hidden_act": "gelu"})
    assert_read(tmp_path, config, arrays)


def test_transformers_windows_are_those_of_the_images_that_it_states(tmp_path):
    config, arrays = small("swin_tiny_patch4_window7_224")
    config = dataclasses.replace(config, window=12, image_size=96)
    arrays = {path: np.resize(arrays[path], shape) for path, shape in array_shapes(config).items()}
    record = {
        **{"model_type": "swin", "num_heads": [2, 4], "depths": [1, 2]},
        **{"image_size": 96, "window_size": 12, "patch_size": 4},
    }
    write_json(tmp_path / "preprocessor_config.json", PROCESSOR)
    write(tmp_path, config, arrays, "hugging_face", record)
    assert_read(tmp_path, config, arrays)


@pytest.mark.parametrize("side", [112, 256])
def test_transformers_windows_that_do_not_fill_its_maps_are_refused(tmp_path, side):
    config, arrays = small("swin_tiny_patch4_window7_224")
    record = {"model_type": "swin", "num_heads": [2, 4], "image_size": side}
    write_json(tmp_path / "preprocessor_config.json", PROCESSOR)
    write(tmp_path, config, arrays, "hugging_face", record)
    with pytest.raises(ValueError, match=f"its image_size is {side}, where maps of .* no whole"):
        read_model_folder(tmp_path)


def load_capability_naming(model: str) -> str:
    """Return the family's first naming, timm's."""
    return load_capability(families()[model_entry(model).family], "names").namings[0]
