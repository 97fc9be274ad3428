"""The named models: names, sizes, maps and gradients; their parameters are counted elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model, list_models, model_entry
from lska_jax.models.build import abstract_model
from lska_jax.models.van_config import VANConfig
from lska_jax.nn.functional import FlatArrays, ModelFunctions, batch_stats, parameters

ATTENTIONS = ("lska", "lka", "lska_trivial", "lka_trivial")
# Widths and blocks of the four stages, from the tables of the paper and its code.
SIZES = {
    "tiny": ((32, 64, 160, 256), (3, 3, 5, 2)),
    "small": ((64, 128, 320, 512), (2, 2, 4, 2)),
    "base": ((64, 128, 320, 512), (3, 3, 12, 3)),
    "large": ((64, 128, 320, 512), (3, 5, 27, 3)),
    "b4": ((64, 128, 320, 512), (3, 6, 40, 3)),
    "b5": ((96, 192, 480, 768), (3, 3, 24, 3)),
    "b6": ((96, 192, 384, 768), (6, 6, 90, 6)),
}


@pytest.mark.parametrize("name", list_models("van_*"))
def test_every_model_has_the_attention_widths_and_blocks_of_its_name(name):
    _, attention, size = name.replace("_trivial", "-trivial").split("_")
    fields = model_entry(name).fields
    assert fields["attention"] == attention.replace("-", "_")
    assert (fields["dims"], fields["depths"]) == SIZES[size]


# A size is nothing but widths and depths, and one of them shows that they become a network.
@pytest.mark.parametrize(
    "name",
    [
        name if name == "van_lska_tiny" else pytest.param(name, marks=pytest.mark.slow)
        for name in list_models("van_*")
    ],
)
def test_every_model_has_its_maps_blocks_and_logits(name):
    dims, depths = SIZES[name.rsplit("_", 1)[1]]
    model = abstract_model(VANConfig(num_classes=10, **model_entry(name).fields))
    assert [len(stage.blocks) for stage in model.stages] == list(depths)
    graph, state = nnx.split(model)

    def run(state: nnx.State, images: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        maps = nnx.merge(graph, state).features(images)
        return maps, nnx.merge(graph, state).head(maps[-1])

    maps, logits = jax.eval_shape(run, state, jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32))
    assert [stage.shape for stage in maps] == [
        (4, side, side, channels) for side, channels in zip((16, 8, 4, 2), dims, strict=True)
    ]
    assert logits.shape == (4, 10)


# The widths of one size are as good as those of another, but each step of each attention counts.
NARROW = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2)}
ONE_STAGE = {"dims": (4,), "depths": (1,), "ffn_ratios": (2,)}


@pytest.mark.parametrize(
    ("name", "dtype", "changes"),
    [
        pytest.param(f"van_{attention}_tiny", "float32", ONE_STAGE, marks=marks)
        for attention, marks in zip(ATTENTIONS[1:], ((), *2 * (pytest.mark.slow,)), strict=True)
    ]
    + [("van_lska_tiny", "float32", NARROW)]
    + [pytest.param("van_lska_tiny", "bfloat16", ONE_STAGE, marks=pytest.mark.slow)]
    + [
        pytest.param(name, dtype, {}, marks=pytest.mark.slow)
        for name in ("van_lska_tiny", "van_lka_tiny", "van_lska_small", "van_lska_b5")
        for dtype in ("float32", "bfloat16")
    ],
)
def test_every_parameter_has_a_finite_gradient(name, dtype, changes):
    model = create_model(name, num_classes=10, dtype=dtype, **changes)
    functions = ModelFunctions(model)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((4, 16, 16, 3)), jnp.float32)
    targets = jax.nn.one_hot(jnp.arange(4), 10)

    def loss(params: FlatArrays, stats: FlatArrays) -> jax.Array:
        logits, _ = functions.train(params, stats, images, key=jax.random.key(0))
        assert logits.shape == (4, 10) and logits.dtype == jnp.float32
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), -1))

    gradients = jax.jit(jax.grad(loss))(parameters(model), batch_stats(model))
    host = {path: np.asarray(gradient) for path, gradient in gradients.items()}
    assert host.keys() == parameters(model).keys()
    assert not [path for path, gradient in host.items() if not np.isfinite(gradient).all()]
    assert not [path for path in host if path.endswith("kernel") and not host[path].any()]


def test_every_attention_is_registered_in_every_size():
    assert sorted(list_models("van_*")) == sorted(f"van_{a}_{s}" for a in ATTENTIONS for s in SIZES)


@pytest.mark.parametrize(
    ("pattern", "count"), [("van_*", 28), ("van_lska_*", 14), ("van_*_tiny", 4), ("resnet*", 0)]
)
def test_models_are_listed_by_pattern(pattern, count):
    assert len(list_models(pattern)) == count


@pytest.mark.parametrize("name", list_models("van_*"))
def test_every_model_carries_its_preprocessing(name):
    preprocessing = model_entry(name).preprocessing
    # The reference's classification models were trained with 0.5, not with ImageNet's mean.
    assert preprocessing.mean == preprocessing.std == (0.5, 0.5, 0.5)
    assert preprocessing.image_size == 224
    assert preprocessing.crop_pct == 0.9
    assert preprocessing.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("unknown", "suggestion"),
    [
        ("van_lska_tny", "van_lska_tiny"),
        ("van-lka-base", "van_lka_base"),
        ("lska_b6", "van_lska_b6"),
    ],
)
def test_an_unknown_name_suggests_the_closest(unknown, suggestion):
    with pytest.raises(ValueError, match=f"Unknown model '{unknown}'.*{suggestion}"):
        create_model(unknown)


def test_a_name_like_no_other_points_to_the_list():
    with pytest.raises(ValueError, match="Unknown model 'resnet50'. See lska_jax.list_models()"):
        create_model("resnet50")


def test_a_field_that_the_config_does_not_have_is_a_type_error():
    with pytest.raises(TypeError, match="drop_path"):
        create_model("van_lska_tiny", drop_path=0.1)


def test_any_part_of_the_config_can_be_replaced():
    changes = {"k": 35, "dilation": 2, "in_channels": 1, "drop_path_rate": 0.2, "stem_stride": 2}
    changes["depths"] = (1, 1, 1, 1)
    config = nnx.eval_shape(lambda: create_model("van_lka_small", **changes)).config
    assert (config.attention, config.k, config.dilation, config.in_channels) == ("lka", 35, 2, 1)
    assert (config.drop_path_rate, config.stem_stride) == (0.2, 2)
    assert (config.dims, config.depths) == (SIZES["small"][0], (1, 1, 1, 1))


def test_the_given_rngs_decide_the_parameters():
    def kernel(rngs: nnx.Rngs | None) -> np.ndarray:
        sizes = {"dims": (2,), "depths": (1,), "ffn_ratios": (1,), "num_classes": 3, "k": 7}
        model = create_model("van_lska_tiny", rngs=rngs, **sizes)
        return np.asarray(model.classifier.kernel[...])

    np.testing.assert_array_equal(kernel(None), kernel(nnx.Rngs(0)))
    assert np.any(kernel(None) != kernel(nnx.Rngs(1)))
