"""From a config to the names and shapes of its checkpoint, and back to the config."""

import pytest

from lska_jax import VANConfig, create_model, list_models, model_entry
from lska_jax.models.build import array_shapes
from lska_jax.models.van_config import describe
from lska_jax.weights.names.recognition import recognise
from lska_jax.weights.names.van import NAMES

SMALL = {"dims": (4, 6), "depths": (1, 2), "ffn_ratios": (2, 3), "num_classes": 5}


def torch_shapes(config: VANConfig) -> dict[str, tuple[int, ...]]:
    named = {}
    for path, shape in array_shapes(config).items():
        name, layout = NAMES.name_of(path, variant=config.attention)
        named[name] = layout.torch_shape(shape)
    return named


@pytest.mark.parametrize(
    ("name", "k"),
    [(name, k) for name in list_models("*_tiny") for k in (7, 11, 23, 35, 41, 53)]
    + [("van_lka_small", 23), ("van_lska_base", 35), ("van_lska_trivial_large", 23)]
    + [
        pytest.param(name, 23, marks=pytest.mark.slow)
        for name in list_models()
        if not name.endswith("tiny")
    ],
)
def test_every_named_model_is_recognised_by_its_shapes(name, k):
    config = VANConfig(k=k, **model_entry(name).fields)
    shapes = torch_shapes(config)
    assert recognise(shapes) is NAMES
    fields = NAMES.infer(shapes).fields
    assert {key: fields[key] for key in ("attention", "k", "dims", "depths", "ffn_ratios")} == {
        key: getattr(config, key) for key in ("attention", "k", "dims", "depths", "ffn_ratios")
    }
    assert (fields["num_classes"], fields["in_channels"]) == (1000, 3)
    assert describe(config) == f"{name}, k={k}, 1000 classes"


@pytest.mark.parametrize(("k", "dilation"), [(23, 4), (11, 3), (35, 6), (35, 2)])
def test_a_dilation_that_is_not_the_references_is_not_guessed(k, dilation):
    shapes = torch_shapes(VANConfig(k=k, dilation=dilation, **SMALL))
    assert NAMES.infer(shapes).fields["k"] is None


def test_names_of_no_family_are_refused_with_some_of_them():
    with pytest.raises(
        ValueError, match=r"no array has a name of a family.*patch_embed1.*layer1\.weight"
    ):
        recognise({"layer1.weight": (3, 3)})


def test_a_stray_block_number_does_not_make_a_deep_network():
    shapes = {**torch_shapes(VANConfig(**SMALL)), "block1.999.norm1.weight": (4,)}
    assert NAMES.infer(shapes).fields["depths"] == (2, 2)


def test_a_size_of_ones_own_is_described_by_its_stages():
    config = create_model("van_lska_tiny", k=11, **SMALL).config
    assert describe(config) == (
        "a VAN with lska, k=11, dims=(4, 6), depths=(1, 2), ffn_ratios=(2, 3), 5 classes"
    )
