"""ViT's checkpoints: exactly the names of the published ones, and what their shapes say."""

import itertools

import golden_weights
import numpy as np
import pytest
from small_models import write_safetensors

from lska_jax import create_model
from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.table import section_of
from lska_jax.models.vit_config import KINDS, ViTConfig
from lska_jax.weights import import_checkpoint
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import write_model_folder
from lska_jax.weights.names.recognition import full_names, recognise
from lska_jax.weights.names.vit import NAMES, NAMINGS
from lska_jax.weights.pretrained import arrays_of
from lska_jax.weights.state_dict import make_state_dict, name_arrays

TINY = {"dim": 8, "depth": 2, "heads": 2, "patch_size": 4, "position_grid": 3, "num_classes": 5}
# What no shape shows, or a model's name says otherwise.
FIELDS = {"dim": 8, "depth": 2, "heads": 2}


def state_dict(naming: str = "", **fields) -> dict[str, np.ndarray]:
    """Return a checkpoint whose every array is another."""
    config = ViTConfig(**fields)
    shapes = array_shapes(config)
    arrays = {path: golden_weights.normal(path, shape) for path, shape in shapes.items()}
    return name_arrays(config, arrays, naming=naming)


def shapes_of(**fields) -> dict[str, tuple[int, ...]]:
    config = ViTConfig(**fields)
    named = {}
    for path, shape in array_shapes(config).items():
        name, layout = NAMES.name_of(path, variant=config.kind)
        named[name] = layout.torch_shape(shape)
    return named


def test_the_original_deit3_has_other_names_for_its_layer_scale_alone():
    ours = NAMES.names_of("blocks/3/scale_2/scale", variant="deit3")[0]
    assert ours == {"timm": ("blocks.3.ls2.gamma",), "original": ("blocks.3.gamma_2",)}
    renamed = [
        path
        for path in array_shapes(ViTConfig(kind="deit3"))
        if len(set(NAMES.names_of(path, variant="deit3")[0].values())) > 1
    ]
    assert len(renamed) == 24 and all("scale_" in path for path in renamed)


@pytest.mark.parametrize(
    ("kind", "naming"),
    # transformers has no DeiT-III.
    [pair for pair in itertools.product(KINDS, NAMINGS) if pair != ("deit3", "hugging_face")],
)
def test_a_checkpoint_is_recognised_by_its_names(kind, naming):
    given = {n: a.shape for n, a in state_dict(naming, kind=kind, **TINY).items()}
    assert recognise(given) is NAMES
    shown = NAMES.infer(given).fields
    kinds = ("vit", "deit") if kind in ("vit", "deit") else (kind,)
    wanted = {k: v for k, v in TINY.items() if k != "heads"}
    assert shown["kinds"] == kinds
    assert {name: shown[name] for name in wanted} == wanted
    assert (shown["mlp_ratio"], shown["in_channels"]) == (4, 3)


def test_transformers_names_without_their_beginning_are_completed():
    whole = list(state_dict("hugging_face", **{**TINY, "num_classes": 0}))
    assert full_names([name.removeprefix("vit.") for name in whole]) == whole


def chosen(**fields) -> ViTConfig:
    return NAMES.choose_config(NAMES.infer(shapes_of(**fields)), entry=None, given={})


@pytest.mark.parametrize("model", ["deit_base_distilled_patch16_224", "deit3_medium_patch16_224"])
def test_a_network_of_one_name_is_known_by_its_shapes(model):
    config = config_of(section_of(model, num_classes=7, in_channels=1, position_grid=24))
    given = {field: getattr(config, field) for field in ViTConfig.__dataclass_fields__}
    assert chosen(**given) == config


def test_a_network_of_two_names_is_refused_with_both():
    with pytest.raises(ValueError, match="vit_tiny_patch16_224 and deit_tiny_patch16_224.*--model"):
        chosen()


def test_a_network_of_no_name_is_refused_with_what_was_found_and_what_is_allowed():
    with pytest.raises(ValueError, match=r"vit or deit of dim=8, depth=2, mlp_ratio=4.*deit3_base"):
        chosen(**TINY)


def test_shapes_that_show_no_network_are_refused_with_what_is_unclear():
    shapes = shapes_of()
    del shapes["pos_embed"]
    with pytest.raises(ValueError, match="does not show the network's position_grid"):
        NAMES.choose_config(NAMES.infer(shapes), entry=None, given={})


@pytest.mark.parametrize(("model", "mean"), [("vit", 0.5), ("deit", 0.485)])
def test_an_import_by_name_takes_that_models_preprocessing(tmp_path, model, mean):
    path = write_safetensors(tmp_path / "in.safetensors", state_dict(**TINY))
    facts = import_checkpoint(
        path,
        tmp_path / "out",
        model=f"{model}_tiny_patch16_224",
        report=lambda line: None,
        **FIELDS,
    )
    assert facts.preprocessing.mean[0] == mean
    assert facts.config.kind == model


def test_positions_of_another_grid_are_taken_as_they_are_and_said(tmp_path):
    stored = state_dict(**{**TINY, "position_grid": 24})
    lines: list[str] = []
    facts = import_checkpoint(
        write_safetensors(tmp_path / "in.safetensors", stored),
        tmp_path / "out",
        model="vit_tiny_patch16_224",
        report=lines.append,
        **FIELDS,
    )
    assert facts.config.position_grid == 24
    assert any("24x24 patches: the network was trained at 96 pixels" in line for line in lines)


def test_pretrained_weights_of_another_grid_are_refused_with_both(tmp_path):
    network = create_model("deit_tiny_patch16_224", **TINY)
    facts = ModelFacts(config=network.config, preprocessing=network.preprocessing)
    write_model_folder(tmp_path / "folder", facts, arrays_of(network))
    with pytest.raises(ValueError, match="position_grid: asked for 24, the weights have 3"):
        create_model(pretrained=tmp_path / "folder", position_grid=24)


def test_a_distilled_networks_weights_take_other_classes_with_two_fresh_heads(tmp_path):
    network = create_model("deit_tiny_distilled_patch16_224", **TINY)
    facts = ModelFacts(config=network.config, preprocessing=network.preprocessing)
    write_model_folder(tmp_path / "folder", facts, arrays_of(network))
    other = create_model(pretrained=tmp_path / "folder", num_classes=7)
    assert other.distillation_classifier.kernel.shape == other.classifier.kernel.shape == (8, 7)
    assert {n for n in make_state_dict(other) if "head" in n} == {
        "head.weight",
        "head.bias",
        "head_dist.weight",
        "head_dist.bias",
    }
