"""Swin's table of names: those of timm, the authors and transformers, read and written."""

import golden_weights
import numpy as np
import pytest
from flax import nnx
from small_models import write_safetensors

from lska_jax.models.build import array_shapes, build
from lska_jax.models.swin_config import SwinConfig
from lska_jax.weights import (
    import_checkpoint,
    load_state_dict,
    read_model_folder,
)
from lska_jax.weights.names.recognition import recognise
from lska_jax.weights.names.swin import NAMES, NAMINGS
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.state_dict import name_arrays

TINY = "swin_tiny_patch4_window7_224"
# Three stages, so that there is a patch merging between two others; windows of two sizes.
NARROW = SwinConfig(
    dims=(4, 8, 12),
    depths=(1, 2, 1),
    heads=(1, 2, 3),
    window=3,
    patch_size=2,
    image_size=8,
    num_classes=5,
)


def values_of(config: SwinConfig) -> dict[str, np.ndarray]:
    """Return arrays by our paths, whose values belong to the paths."""
    return {path: golden_weights.normal(path, s) for path, s in array_shapes(config).items()}


def state_dict(config: SwinConfig, naming: str) -> dict[str, np.ndarray]:
    return name_arrays(config, values_of(config), naming=naming)


def assert_same_arrays(ours, theirs):
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("num_classes", [5, 0])
def test_a_file_of_any_naming_shows_its_network_and_gives_the_same_arrays(
    tmp_path, naming, num_classes
):
    config = SwinConfig(**{**vars(NARROW), "num_classes": num_classes, "image_size": 224})
    path = write_safetensors(tmp_path / "a.safetensors", state_dict(config, naming))
    facts = import_checkpoint(path, tmp_path / "out", report=lambda line: None)
    assert facts.config == config and facts.source["naming"] == naming
    assert_same_arrays(read_model_folder(tmp_path / "out")[1], values_of(config))


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_state_dict_of_any_naming_loads_into_a_model(naming):
    model = build(NARROW, rngs=nnx.Rngs(0))
    load_state_dict(model, state_dict(NARROW, naming))
    assert_same_arrays(arrays_of(model), values_of(NARROW))


def test_constants_that_the_authors_keep_in_their_files_are_left_aside():
    model = build(NARROW, rngs=nnx.Rngs(0))
    constants = {
        "layers.0.blocks.0.attn.relative_position_index": np.zeros((9, 9), np.int64),
        "layers.0.blocks.1.attn_mask": np.zeros((4, 9, 9), np.float32),
    }
    load_state_dict(model, {**state_dict(NARROW, "original"), **constants})
    assert_same_arrays(arrays_of(model), values_of(NARROW))


def test_transformers_files_without_a_classifier_have_no_swin_in_front(tmp_path):
    config = SwinConfig(**{**vars(NARROW), "num_classes": 0, "image_size": 224})
    named = {n.removeprefix("swin."): a for n, a in state_dict(config, "hugging_face").items()}
    path = write_safetensors(tmp_path / "a.safetensors", named)
    facts = import_checkpoint(path, tmp_path / "out", report=lambda line: None)
    assert facts.config == config
    assert_same_arrays(read_model_folder(tmp_path / "out")[1], values_of(config))


def test_a_missing_patch_merging_is_called_by_the_naming_of_the_file():
    model = build(NARROW, rngs=nnx.Rngs(0))
    incomplete = state_dict(NARROW, "original")
    del incomplete["layers.1.downsample.reduction.weight"]
    with pytest.raises(ValueError, match="missing.*\n.*layers.1.downsample.reduction.weight"):
        load_state_dict(model, incomplete)


def test_an_exported_file_says_that_windows_of_other_images_do_not_show():
    (note,) = NAMES.export_notes("timm", NARROW)
    assert f"images of {NARROW.image_size} pixels" in note
    assert NAMES.export_notes("timm", SwinConfig()) == []


def test_a_file_without_bias_tables_is_refused_with_what_it_does_not_show(tmp_path):
    named = state_dict(NARROW, "timm")
    broken = {name: array for name, array in named.items() if "bias_table" not in name}
    path = write_safetensors(tmp_path / "a.safetensors", broken)
    with pytest.raises(ValueError, match="does not show the network's heads, window"):
        import_checkpoint(path, tmp_path / "out", report=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_names_of_another_family_are_not_taken_for_these():
    van = golden_weights.keys("lka_tiny")
    assert recognise(van).family.name == "van"
    for naming in NAMINGS:
        shapes = {name: array.shape for name, array in state_dict(NARROW, naming).items()}
        assert recognise(shapes) is NAMES
