"""PVT v2: its attention, sizes, initial values, errors and recipe."""

import inspect
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model
from lska_jax.models.build import abstract_model
from lska_jax.models.pvt_v2 import PVTv2, attend
from lska_jax.models.pvt_v2_config import FAMILY, PVTv2Config, check
from lska_jax.training.config_check import check_config

NARROW = {
    "dims": (8, 16),
    "depths": (1, 1),
    "heads": (1, 2),
    "ffn_ratios": (2, 2),
    "reductions": (2, 1),
    "num_classes": 5,
}
LINEAR = {**NARROW, "reductions": (1, 1), "is_linear": True}


def narrow(**config) -> PVTv2:
    return create_model("pvt_v2_b0", **{"implementation": "xla", **NARROW, **config})


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def abstract(**config) -> PVTv2:
    return abstract_model(PVTv2Config(**config))


def shapes(model: PVTv2, images: tuple[int, ...]) -> list[tuple[int, ...]]:
    maps = nnx.eval_shape(lambda model, x: model.features(x), model, jnp.zeros(images))
    return [stage.shape for stage in maps]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((131, 101), [(33, 26), (17, 13), (9, 7), (5, 4)]),
        ((29, 64), [(8, 16), (4, 8), (2, 4), (1, 2)]),
    ],
)
def test_maps_of_odd_images_are_rounded_up(size, expected):
    model = abstract()
    dims = model.config.dims
    wanted = [(1, *side, channels) for side, channels in zip(expected, dims, strict=True)]
    assert shapes(model, (1, *size, 3)) == wanted


def test_images_that_leave_a_stage_without_keys_are_refused():
    model = abstract()
    message = "images must have at least 29 x 29 pixels, got 28 x 64: a map would be left without"
    with pytest.raises(ValueError, match=re.escape(message)):
        inspect.unwrap(PVTv2.features)(model, jnp.zeros((1, 28, 64, 3)))


def test_a_stem_stride_of_one_takes_digits():
    model = abstract(stem_stride=1, in_channels=1)
    assert [shape[1] for shape in shapes(model, (1, 8, 8, 1))] == [8, 4, 2, 1]


def test_linear_attention_takes_images_of_any_size():
    assert shapes(abstract(**LINEAR), (1, 1, 5, 3)) == [(1, 1, 2, 8), (1, 1, 1, 16)]


def test_each_query_mixes_the_values_by_its_softmax_over_the_keys():
    query, key_value = draw(2, 3, 4, 6), draw(2, 1, 5, 12)
    out = attend(query, key_value, heads=2)
    queries = np.asarray(query, np.float64).reshape(2, 12, 2, 3)
    keys, values = np.split(np.asarray(key_value, np.float64).reshape(2, 5, 2, 2, 3), 2, axis=2)
    logits = np.einsum("bnhd,bmhd->bhnm", queries, keys[:, :, 0]) / np.sqrt(3)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("bhnm,bmhd->bnhd", weights, values[:, :, 0]).reshape(2, 3, 4, 6)
    # Float32 sums of a few products.
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_without_classes_the_model_returns_pooled_features():
    model = narrow(num_classes=0)
    assert model.classifier is None
    features = draw(2, 3, 2, 16)
    np.testing.assert_allclose(
        model.head(features), np.mean(features, (1, 2)), rtol=1e-5, atol=1e-6
    )


def test_initial_values_are_those_of_the_authors():
    wide = create_model("pvt_v2_b0", **{**NARROW, "dims": (64, 128)})
    block = wide.stages[1].blocks[0]
    for kernel, std in (
        (block.attention.query.kernel, 0.02),
        (block.ffn.expand.kernel, 0.02),
        (wide.stages[1].patch_embedding.projection.kernel, np.sqrt(2 / (9 * 128))),
    ):
        values = np.asarray(kernel[...])
        # Five standard errors of a std.
        assert abs(values.std() / std - 1) < 5 / np.sqrt(2 * values.size)
    assert not np.any(block.attention.key_value.bias[...])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"heads": (1, 3)}, "heads=(1, 3): 3 heads cannot share the 16 channels of stage 2"),
        ({"depths": (1,)}, "need one entry for each stage"),
        ({"is_linear": True}, "reductions=(2, 1): linear attention pools instead"),
        ({"reductions": (0, 1)}, "reductions[0]=0 must be at least 1"),
        ({"stem_stride": 0}, "stem_stride=0 must be at least 1"),
        ({"implementation": "fast"}, "Unknown implementation 'fast'; allowed: auto, xla"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and below 1"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PVTv2Config(**{**NARROW, **config})


def test_what_a_file_says_of_a_config_has_to_be_of_the_right_type():
    fields = {**FAMILY.defaults, "is_linear": 1, "remat": "yes", "dims": None}
    assert check(fields) == [
        "dims=None must have one whole number for each stage.",
        "remat='yes' must be True or False.",
        "is_linear=1 must be True or False.",
    ]


@pytest.mark.parametrize(("name", "drop_path", "clip"), [("", 0.1, 0.0), ("pvt_v2_b3", 0.3, 1.0)])
def test_the_recipe_is_that_of_the_authors(name, drop_path, clip):
    path = Path(__file__).parents[2] / "configs" / "pvt_v2.py"
    config = runpy.run_path(str(path))["get_config"](name)
    check_config(config)
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.min_learning_rate) == (1e-3, 1e-5)
    assert (config.training.batch_size, optimizer.epochs, optimizer.warmup_epochs) == (1024, 300, 5)
    assert (config.model.drop_path_rate, optimizer.clip_norm) == (drop_path, clip)
    assert config.data.mean == FAMILY.preprocessing.mean


def test_another_argument_of_the_recipe_is_refused():
    path = Path(__file__).parents[2] / "configs" / "pvt_v2.py"
    with pytest.raises(ValueError, match="'b0' is not understood; allowed: pvt_v2_b0, pvt_v2_b1"):
        runpy.run_path(str(path))["get_config"]("b0")
