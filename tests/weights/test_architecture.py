"""From a config to the names and shapes of its checkpoint, and back to the config."""

import pytest

from lska_jax import VANConfig, list_models, model_entry
from lska_jax.models.build import array_shapes
from lska_jax.models.van_config import describe
from lska_jax.weights.names.recognition import recognise
from lska_jax.weights.names.van import NAMES

SMALL = {"dims": (4, 6), "depths": (1, 2), "ffn_ratios": (2, 3), "num_classes": 5}
ARCHITECTURE = ("attention", "k", "dims", "depths", "ffn_ratios", "num_classes", "in_channels")


def torch_shapes(config: VANConfig) -> dict[str, tuple[int, ...]]:
    named = {}
    for path, shape in array_shapes(config).items():
        name, layout = NAMES.name_of(path, variant=config.attention)
        named[name] = layout.torch_shape(shape)
    return named


def assert_recognised(config: VANConfig) -> None:
    shapes = torch_shapes(config)
    assert recognise(shapes) is NAMES
    fields = NAMES.infer(shapes).fields
    assert {key: fields[key] for key in ARCHITECTURE} == {
        key: getattr(config, key) for key in ARCHITECTURE
    }


@pytest.mark.parametrize(
    "name",
    [
        name if name == "van_lska_tiny" else pytest.param(name, marks=pytest.mark.slow)
        for name in list_models("van_*")
    ],
)
def test_a_named_model_is_recognised_by_its_shapes(name):
    assert_recognised(VANConfig(**model_entry(name).fields))


# Every k of one attention, and one k of every attention.
@pytest.mark.parametrize(
    ("attention", "k"),
    [
        pytest.param(
            *(attention, k), marks=() if attention == "lska" or k == 35 else pytest.mark.slow
        )
        for attention in ("lska", "lka", "lska_trivial", "lka_trivial")
        for k in (7, 11, 23, 35, 41, 53)
    ],
)
def test_the_shapes_show_the_attention_and_k(attention, k):
    config = VANConfig(attention=attention, k=k, dims=(4,), depths=(1,), ffn_ratios=(2,))
    assert_recognised(config)


def test_the_shapes_show_stages_of_ten_blocks_and_more():
    sizes = {"dims": (4, 6), "depths": (1, 11), "ffn_ratios": (2, 3)}
    assert_recognised(VANConfig(attention="lka", num_classes=5, in_channels=1, **sizes))


@pytest.mark.parametrize("name", list_models("van_*"))
def test_a_named_model_is_described_by_its_name(name):
    config = VANConfig(k=35, **model_entry(name).fields)
    assert describe(config) == f"{name}, k=35, 1000 classes"


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
    assert describe(VANConfig(k=11, **SMALL)) == (
        "a VAN with lska, k=11, dims=(4, 6), depths=(1, 2), ffn_ratios=(2, 3), 5 classes"
    )
