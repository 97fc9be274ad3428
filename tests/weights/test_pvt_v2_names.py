"""PVT v2's names: those of three kinds of checkpoints, told apart from VAN's, in and out."""

import golden_weights
import numpy as np
import pytest
from small_models import write_safetensors

from lska_jax.models.build import array_shapes
from lska_jax.models.pvt_v2_config import PVTv2Config
from lska_jax.models.table import Preprocessing
from lska_jax.models.van_config import VANConfig
from lska_jax.weights import (
    import_checkpoint,
    read_model_folder,
)
from lska_jax.weights.names.pvt_v2 import NAMES
from lska_jax.weights.names.recognition import recognise
from lska_jax.weights.names.van import NAMES as VAN_NAMES
from lska_jax.weights.state_dict import name_arrays

SMALL = {
    "dims": (4, 8),
    "depths": (1, 2),
    "heads": (1, 2),
    "ffn_ratios": (2, 3),
    "reductions": (2, 1),
    "num_classes": 6,
}


def state_dict(config, naming: str = "") -> dict[str, np.ndarray]:
    """Return names of a checkpoint with values that belong to our paths, all different."""
    arrays = {p: golden_weights.normal(p, shape) for p, shape in array_shapes(config).items()}
    return name_arrays(config, arrays, naming=naming)


def torch_shapes(config, naming: str = "") -> dict[str, tuple[int, ...]]:
    arrays = {p: np.empty(shape, np.float32) for p, shape in array_shapes(config).items()}
    return {name: array.shape for name, array in name_arrays(config, arrays, naming=naming).items()}


@pytest.mark.parametrize("naming", VAN_NAMES.namings)
@pytest.mark.parametrize("depths", [(1, 1), (2, 3)])
def test_van_is_not_taken_for_pvt_v2(naming, depths):
    sizes = {"dims": (4, 8), "ffn_ratios": (2, 2), "depths": depths}
    config = VANConfig(attention="lka", num_classes=0, **sizes)
    assert recognise(torch_shapes(config, naming)) is VAN_NAMES


def test_what_the_other_code_has_to_be_told_is_said():
    assert NAMES.export_notes("timm", PVTv2Config()) == []
    (note,) = NAMES.export_notes("timm", PVTv2Config(stem_stride=1))
    assert note.startswith("The stride of the first convolution is 1, the timm code has 4")


def test_a_backbone_without_prefix_and_classifier_is_imported(tmp_path):
    config = PVTv2Config(**{**SMALL, "num_classes": 0})
    names = {n.removeprefix("pvt_v2."): a for n, a in state_dict(config, "hugging_face").items()}
    path = write_safetensors(tmp_path / "a.safetensors", names)
    import_checkpoint(path, tmp_path / "out", report=lambda line: None, heads=(1, 2))
    facts, _ = read_model_folder(tmp_path / "out")[:2]
    assert facts.config == config
    assert isinstance(facts.preprocessing, Preprocessing)


def test_keys_and_values_are_joined_in_this_order():
    config = PVTv2Config(**SMALL)
    joined = state_dict(config)["stages.0.blocks.0.attn.kv.weight"]
    split = state_dict(config, "hugging_face")
    parts = [
        split[f"pvt_v2.encoder.layers.0.blocks.0.attention.{part}.weight"]
        for part in ("key", "value")
    ]
    np.testing.assert_array_equal(np.concatenate(parts), joined)


def test_sizes_of_no_named_model_ask_for_the_heads():
    inferred = NAMES.infer(torch_shapes(PVTv2Config(**SMALL)))
    with pytest.raises(ValueError, match=r"none of pvt_v2_b0, .*--field heads="):
        NAMES.choose_config(inferred, entry=None, given={})


def test_a_file_that_lacks_arrays_is_refused_with_what_is_unclear():
    shapes = {n: s for n, s in torch_shapes(PVTv2Config(**SMALL)).items() if ".mlp." not in n}
    with pytest.raises(ValueError, match="does not show the network's ffn_ratios"):
        NAMES.choose_config(NAMES.infer(shapes), entry=None, given={})
