"""UniRepLKNet's names: those of the published checkpoints, and what they say about the network."""

import golden_weights
import numpy as np
import pytest

from lska_jax.models.build import array_shapes
from lska_jax.models.unireplknet_config import UniRepLKNetConfig
from lska_jax.weights.import_torch import import_checkpoint
from lska_jax.weights.model_folder import read_model_folder
from lska_jax.weights.names.unireplknet import NAMES
from lska_jax.weights.safetensors_file import save_safetensors
from lska_jax.weights.state_dict import name_arrays

TINY = UniRepLKNetConfig(dims=(4, 8), depths=(1, 3), large_every=(0, 2), num_classes=5)
COUNTER = "num_batches_tracked"


def state_dict(config: UniRepLKNetConfig) -> dict[str, np.ndarray]:
    """Return the names of a config's checkpoint, with values that are all different."""
    zeros = {path: np.zeros(shape, np.float32) for path, shape in array_shapes(config).items()}
    return {
        name: np.asarray(golden_weights.weight(name, array.shape), array.dtype)
        for name, array in name_arrays(config, zeros).items()
    }


def shapes_of(config: UniRepLKNetConfig) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in state_dict(config).items()}


def import_into(folder, arrays: dict[str, np.ndarray], **options):
    file = folder / "file.safetensors"
    save_safetensors(file, arrays, metadata={"format": "pt"})
    return import_checkpoint(file, folder / "out", report=lambda line: None, **options)


@pytest.mark.parametrize(
    ("depths", "large_every"), [((1, 1), (1, 1)), ((2, 3), (2, 3)), ((4, 5), (3, 2))]
)
def test_where_the_large_kernels_are_is_read_off_the_names(depths, large_every):
    config = UniRepLKNetConfig(dims=(4, 8), depths=depths, large_every=large_every)
    inferred = NAMES.infer(shapes_of(config))
    assert NAMES.choose_config(inferred, entry=None, given={}) == config


@pytest.mark.parametrize(
    "name",
    [
        "stages.0.0.dwconv.lk_origin.bias",
        "stages.0.0.dwconv.bias",
        "stages.0.0.pwconv1.weight",
        "stages.0.0.dwconv.dil_conv_k7_3.weight",
        "downsample_layers.00.0.weight",
    ],
)
def test_a_name_that_is_nearly_right_means_nothing(name):
    assert NAMES.read(name) == []


def test_a_file_is_imported_without_the_models_name(tmp_path):
    given = state_dict(TINY)
    assert import_into(tmp_path, given).config == TINY
    _, arrays = read_model_folder(tmp_path / "out")
    back = name_arrays(TINY, arrays)
    counted = {name: array for name, array in given.items() if not name.endswith(COUNTER)}
    assert all(np.array_equal(back[name], array) for name, array in counted.items())


def test_a_merged_file_is_refused_with_what_to_import(tmp_path):
    given = state_dict(TINY)
    merged = {n: a for n, a in given.items() if "dil_" not in n and "origin_bn" not in n}
    merged["stages.1.0.dwconv.lk_origin.bias"] = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match=r"branches are merged.* Import the file that they were"):
        import_into(tmp_path, merged)
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_size_is_refused_by_the_fields_that_differ(tmp_path):
    with pytest.raises(ValueError, match=r"Asked for: dims \(40, .*the file's shapes say \(4, 8\)"):
        import_into(tmp_path, state_dict(TINY), model="unireplknet_a")


def test_a_file_without_a_stage_is_refused(tmp_path):
    given = {n: a for n, a in state_dict(TINY).items() if not n.startswith("stages.1")}
    with pytest.raises(ValueError, match="does not show the network's stages"):
        import_into(tmp_path, given)


def test_large_kernels_that_follow_no_rule_are_refused(tmp_path):
    config = UniRepLKNetConfig(dims=(4, 8), depths=(1, 4), large_every=(0, 1))
    given = state_dict(config)
    lost = {n: a for n, a in given.items() if not n.startswith("stages.1.2.dwconv")}
    lost["stages.1.2.dwconv.weight"] = np.zeros((8, 1, 3, 3), np.float32)
    with pytest.raises(ValueError, match="follow no rule of the family. Pass --model, one of"):
        import_into(tmp_path, lost)
