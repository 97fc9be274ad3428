"""ConvNeXt's names: those of the published checkpoints, read off files of every naming."""

import golden_weights
import numpy as np
import pytest

from lska_jax import create_model
from lska_jax.models.build import array_shapes
from lska_jax.models.convnext_config import ConvNeXtConfig
from lska_jax.weights.import_torch import import_checkpoint
from lska_jax.weights.names.convnext import NAMES, NAMINGS
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.safetensors_file import save_safetensors
from lska_jax.weights.state_dict import name_arrays

SMALL = {"dims": (4, 6, 8), "depths": (1, 2, 1), "patch_size": 2, "num_classes": 5}


def names_of(config: ConvNeXtConfig, naming: str) -> dict[str, tuple[int, ...]]:
    shapes, named = array_shapes(config), {}
    for path in NAMES.in_order(list(shapes), variant=""):
        name, layout = NAMES.name_of(path, variant="", naming=naming)
        named[name] = layout.torch_shape(shapes[path])
    return named


def small_state_dict(naming: str = "", **config) -> dict[str, np.ndarray]:
    """Return names with values that belong to their timm names, all different."""
    config = ConvNeXtConfig(**{**SMALL, **config})
    zeros = {path: np.zeros(shape, np.float32) for path, shape in array_shapes(config).items()}
    timm, named = name_arrays(config, zeros), name_arrays(config, zeros, naming=naming)
    return {
        name: golden_weights.normal(reference, array.shape)
        for (name, array), reference in zip(named.items(), timm, strict=True)
    }


def imported(tmp_path, state_dict, **options):
    """Return the model that a file becomes, and the first line of the report."""
    save_safetensors(tmp_path / "file.safetensors", state_dict, metadata={"format": "pt"})
    lines: list[str] = []
    options = {"report": lines.append, **options}
    import_checkpoint(tmp_path / "file.safetensors", tmp_path / "model", **options)
    return create_model(pretrained=tmp_path / "model"), lines[0]


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_file_of_any_naming_shows_the_whole_network(tmp_path, naming):
    model, line = imported(tmp_path, small_state_dict(naming))
    assert model.config == ConvNeXtConfig(**SMALL)
    assert f"naming {naming}: a ConvNeXt, dims=(4, 6, 8), depths=(1, 2, 1), patch_size=2" in line
    expected = {
        path: NAMES.name_of(path, variant="")[1].array(golden_weights.normal(name, shape))
        for path, (name, shape) in zip(
            NAMES.in_order(list(arrays_of(model)), variant=""),
            names_of(model.config, "timm").items(),
            strict=True,
        )
    }
    for path, array in arrays_of(model).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_a_hugging_face_file_without_its_first_word_and_classifier_is_read(tmp_path):
    state_dict = small_state_dict("hugging_face", num_classes=0, in_channels=1)
    bare = {name.removeprefix("convnext."): array for name, array in state_dict.items()}
    assert "layernorm.weight" in bare
    model, line = imported(tmp_path, bare)
    assert "naming hugging_face" in line
    assert model.config == ConvNeXtConfig(**{**SMALL, "num_classes": 0, "in_channels": 1})


def test_what_is_missing_or_of_another_network_is_listed(tmp_path):
    state_dict = small_state_dict()
    del state_dict["stages.1.blocks.0.gamma"]
    # ConvNeXt V2 has these.
    state_dict["stages.0.blocks.0.mlp.grn.weight"] = np.zeros(16, np.float32)
    with pytest.raises(ValueError) as refusal:
        imported(tmp_path, state_dict)
    assert "stages.1.blocks.0.gamma" in str(refusal.value)
    assert "stages.0.blocks.0.mlp.grn.weight" in str(refusal.value)
    assert not (tmp_path / "model").exists()


def test_a_file_of_another_size_than_asked_for_is_refused_with_both(tmp_path):
    with pytest.raises(ValueError, match=r"dims \(96, 192, 384, 768\), the file's shapes say"):
        imported(tmp_path, small_state_dict(), model="convnext_tiny")


def test_a_file_that_shows_no_network_says_what_to_do(tmp_path):
    state_dict = {n: a for n, a in small_state_dict().items() if not n.startswith("stem")}
    with pytest.raises(ValueError, match=r"not show .* patch_size, in_channels: .* Pass --model"):
        imported(tmp_path, state_dict)
    with pytest.raises(ValueError, match=r"stem\.0\.weight"):
        imported(tmp_path, state_dict, model="convnext_tiny")
