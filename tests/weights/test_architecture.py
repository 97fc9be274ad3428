"""From a config to shapes without building anything, and from shapes back to the config."""

import jax
import pytest
from flax import nnx

from lska_jax import VAN, VANConfig, create_model, list_models
from lska_jax.nn.functional import batch_stats, parameters
from lska_jax.weights.architecture import array_shapes, describe, infer_architecture
from lska_jax.weights.names.van import reference_name

SMALL = {"dims": (4, 6), "depths": (1, 2), "ffn_ratios": (2, 3), "num_classes": 5}


def torch_shapes(config: VANConfig) -> dict[str, tuple[int, ...]]:
    named = {}
    for path, shape in array_shapes(config).items():
        name, layout = reference_name(path, attention=config.attention)
        named[name] = layout.torch_shape(shape)
    return named


@pytest.mark.parametrize(
    "config",
    [
        *[VANConfig(attention=a, k=11, **SMALL) for a in ("lska", "lka")],
        *[VANConfig(attention=a, k=9, **SMALL) for a in ("lska_trivial", "lka_trivial")],
        VANConfig(k=35, dilation=2, in_channels=1, **{**SMALL, "num_classes": 0}),
    ],
    ids=lambda config: f"{config.attention}-{config.k}",
)
def test_shapes_are_those_of_the_model(config):
    def arrays():
        model = VAN(config, rngs=nnx.Rngs(0))
        return {**parameters(model), **batch_stats(model)}

    built = {path: array.shape for path, array in jax.eval_shape(arrays).items()}
    assert array_shapes(config) == built


@pytest.mark.parametrize(
    ("name", "k"),
    [(name, 23) for name in list_models() if not name.endswith(("b4", "b6"))]
    + [("van_lka_b4", 7), ("van_lska_b6", 53)]
    + [(name, k) for name in list_models("*_tiny") for k in (7, 11, 35, 41, 53)],
)
def test_every_named_model_is_recognised_by_its_shapes(name, k):
    from lska_jax.models.table import model_entry

    entry = model_entry(name)
    config = VANConfig(attention=entry.attention, k=k, **entry.size._asdict())
    fields = infer_architecture(torch_shapes(config)).fields
    assert {key: fields[key] for key in ("attention", "k", "dims", "depths", "ffn_ratios")} == {
        key: getattr(config, key) for key in ("attention", "k", "dims", "depths", "ffn_ratios")
    }
    assert (fields["num_classes"], fields["in_channels"]) == (1000, 3)
    assert describe(config) == f"{name}, k={k}, 1000 classes"


@pytest.mark.parametrize(("k", "dilation"), [(23, 4), (11, 3), (35, 6), (35, 2)])
def test_a_dilation_that_is_not_the_references_is_not_guessed(k, dilation):
    shapes = torch_shapes(VANConfig(k=k, dilation=dilation, **SMALL))
    assert infer_architecture(shapes).fields["k"] is None


def test_names_of_no_van_are_refused_with_some_of_them():
    with pytest.raises(ValueError, match=r"no array has a name of the VAN family.*layer1\.weight"):
        infer_architecture({"layer1.weight": (3, 3)})


def test_a_stray_block_number_does_not_make_a_deep_network():
    shapes = {**torch_shapes(VANConfig(**SMALL)), "block1.999.norm1.weight": (4,)}
    assert infer_architecture(shapes).fields["depths"] == (2, 2)


def test_a_size_of_ones_own_is_described_by_its_stages():
    config = create_model("van_lska_tiny", k=11, **SMALL).config
    assert describe(config) == (
        "a VAN with lska, k=11, dims=(4, 6), depths=(1, 2), ffn_ratios=(2, 3), 5 classes"
    )
