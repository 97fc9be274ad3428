"""InceptionNeXt's names: those of timm's and the authors' checkpoints, in and out."""

import json

import golden_weights
import numpy as np
import pytest

from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.inception_next_config import FAMILY, InceptionNeXtConfig
from lska_jax.models.table import list_models, section_of
from lska_jax.weights import (
    ModelFacts,
    export_checkpoint,
    import_checkpoint,
    write_model_folder,
)
from lska_jax.weights.names.inception_next import NAMES
from lska_jax.weights.names.recognition import recognise
from lska_jax.weights.state_dict import name_arrays

SMALL = {
    "dims": (8, 16),
    "depths": (1, 2),
    "mlp_ratios": (2, 3),
    "band_size": 5,
    "branch_divisor": 4,
    "patch_size": 2,
    "num_classes": 6,
    "in_channels": 1,
}


def torch_shapes(config) -> dict[str, tuple[int, ...]]:
    arrays = {p: np.empty(shape, np.float32) for p, shape in array_shapes(config).items()}
    return {name: array.shape for name, array in name_arrays(config, arrays).items()}


def test_names_shapes_and_order_are_those_of_timm():
    named = torch_shapes(config_of(section_of("inception_next_tiny")))
    assert list(named.items()) == list(golden_weights.keys("inception_next_tiny").items())


def test_the_authors_names_are_timms():
    listed = json.loads((golden_weights.GOLDEN / "inception_next_tiny.names.json").read_text())
    assert all(original == name for name, (original, _) in listed.items())


def test_every_name_is_read_back_as_its_path():
    config = InceptionNeXtConfig(**{**SMALL, "depths": (1, 11)})
    for path in array_shapes(config):
        name, _ = NAMES.name_of(path, variant="")
        assert [meaning.path for meaning in NAMES.read(name)] == [path]


@pytest.mark.parametrize("name", list_models("inception_next_*"))
def test_a_named_model_is_recognised_by_its_shapes(name):
    config = config_of(section_of(name))
    shapes = torch_shapes(config)
    assert recognise(shapes) is NAMES
    assert NAMES.choose_config(NAMES.infer(shapes), entry=None, given={}) == config


@pytest.mark.parametrize("fields", [SMALL, {**SMALL, "num_classes": 0}])
def test_import_after_export_gives_the_same_bytes(tmp_path, fields):
    config = InceptionNeXtConfig(**fields)
    arrays = {
        # Variances are not negative.
        path: np.abs(golden_weights.normal(path, shape))
        for path, shape in array_shapes(config).items()
    }
    prepared = FAMILY.preprocessing.for_channels(1)
    facts = ModelFacts(config=config, preprocessing=prepared)
    folder = write_model_folder(tmp_path / "model", facts, arrays)
    exported = tmp_path / "exported.safetensors"
    export_checkpoint(folder, exported)
    imported = import_checkpoint(exported, tmp_path / "again", report=lambda line: None)
    assert (imported.config, imported.preprocessing) == (config, prepared)
    first, second = (f / "model.safetensors" for f in (folder, tmp_path / "again"))
    assert second.read_bytes() == first.read_bytes()


def test_a_file_that_lacks_arrays_is_refused_with_what_is_unclear():
    shapes = torch_shapes(InceptionNeXtConfig(**SMALL))
    shapes = {name: shape for name, shape in shapes.items() if "dwconv_w." not in name}
    with pytest.raises(ValueError, match="does not show the network's band_size: arrays are miss"):
        NAMES.choose_config(NAMES.infer(shapes), entry=None, given={})
