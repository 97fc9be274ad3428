"""The table of names: exactly those of the published checkpoints, in their order, both ways."""

import re

import golden_weights
import pytest
from small_models import detection_name

from lska_jax import VANConfig
from lska_jax.models.build import array_shapes
from lska_jax.weights.names.van import NAMES, NAMINGS

GOLDEN = {"lska_tiny_k23": VANConfig(), "lka_tiny": VANConfig(attention="lka")}


def names_of(config: VANConfig, naming: str) -> dict[str, tuple[int, ...]]:
    named = {}
    shapes = array_shapes(config)
    for path in NAMES.in_order(list(shapes), variant=config.attention):
        name, layout = NAMES.name_of(path, variant=config.attention, naming=naming)
        named[name] = layout.torch_shape(shapes[path])
    return named


def without_counters(model: str) -> dict[str, tuple[int, ...]]:
    keys = golden_weights.keys(model)
    return {name: shape for name, shape in keys.items() if not name.endswith("batches_tracked")}


@pytest.mark.parametrize("model", GOLDEN)
def test_reference_names_shapes_and_order_are_those_of_the_checkpoint(model):
    assert list(names_of(GOLDEN[model], "reference").items()) == list(
        without_counters(model).items()
    )


def test_hugging_face_names_are_all_of_the_checkpoint_but_the_unused_norm():
    theirs = without_counters("hf_lka_tiny")
    unused = [theirs.pop(f"van.layernorm.{leaf}") for leaf in ("weight", "bias")]
    assert unused == [(256,), (256,)]
    assert names_of(GOLDEN["lka_tiny"], "hugging_face") == theirs


@pytest.mark.parametrize("model", GOLDEN)
def test_detection_names_are_the_reference_names_renamed(model):
    renamed = {detection_name(name): s for name, s in without_counters(model).items()}
    assert names_of(GOLDEN[model], "detection") == renamed


@pytest.mark.parametrize("attention", ["lska", "lka", "lska_trivial", "lka_trivial"])
def test_every_name_is_read_back_as_its_path(attention):
    config = VANConfig(attention=attention, dims=(4, 6), depths=(1, 11), ffn_ratios=(2, 2))
    # Blocks between the second and the last differ from them in their digit alone.
    paths = [path for path in array_shapes(config) if not re.search("blocks/[2-9]/", path)]
    for naming in NAMINGS:
        for path in paths:
            try:
                name, _ = NAMES.name_of(path, variant=attention, naming=naming)
            except ValueError:
                assert naming == "hugging_face" and "depthwise" in path
                continue
            meanings = NAMES.read(name)
            own = [m.path for m in meanings if m.naming == naming and attention in m.variants]
            assert own == [path]


@pytest.mark.parametrize(
    "name",
    [
        "block01.0.norm1.weight",
        "block1.00.norm1.weight",
        "block0.0.norm1.weight",
        "block1.0.norm1.weight ",
        "block1.0.norm3.weight",
        "xblock1.0.norm1.weight",
        "block1.9999.norm1.weight",
        "block\u0661.0.norm1.weight",
        "",
    ],
)
def test_a_name_that_is_nearly_right_means_nothing(name):
    assert NAMES.read(name) == []


def test_hugging_face_has_no_names_for_lska():
    path = "stages/0/blocks/0/attention/gate/depthwise/0/kernel"
    with pytest.raises(ValueError, match="has lka only"):
        NAMES.name_of(path, variant="lska", naming="hugging_face")


def test_an_unknown_naming_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="allowed: reference, detection, hugging_face"):
        NAMES.name_of("classifier/bias", variant="lska", naming="timm")
