"""InceptionNeXt: its mixer, head, sizes, folding, errors and recipe."""

import inspect
import re
import runpy
from pathlib import Path

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model, fold_batch_norm
from lska_jax.models.build import abstract_model
from lska_jax.models.inception_next import InceptionNeXt, Mixer
from lska_jax.models.inception_next_config import FAMILY, InceptionNeXtConfig, check
from lska_jax.models.table import model_entry
from lska_jax.nn.functional import batch_stats, parameters
from lska_jax.ops import depthwise_conv
from lska_jax.training.config_check import check_config

NARROW = {
    "dims": (8, 16),
    "depths": (1, 1),
    "mlp_ratios": (2, 3),
    "band_size": 5,
    "branch_divisor": 4,
    "num_classes": 5,
}


def narrow(**config) -> InceptionNeXt:
    settings = {"implementation": "xla", **NARROW, **config}
    return create_model("inception_next_atto", **settings)


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def abstract(**config) -> InceptionNeXt:
    return abstract_model(InceptionNeXtConfig(**config))


def shapes(model: InceptionNeXt, images: tuple[int, ...]) -> list[tuple[int, ...]]:
    model.eval()
    maps = nnx.eval_shape(lambda model, x: model.features(x), model, jnp.zeros(images))
    return [stage.shape for stage in maps]


@nnx.jit
def maps_and_logits(model: InceptionNeXt, images: jax.Array):
    return model.features(images), model(images)


def scrambled(**config) -> InceptionNeXt:
    """Return a model in evaluation mode whose every scale, bias and statistic is of its own."""
    model, rng = narrow(**config), np.random.default_rng(1)
    for variable in jax.tree.leaves(
        nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)),
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    ):
        noise = rng.uniform(0.2, 0.6, variable[...].shape)
        variable.set_value(jnp.asarray(noise, jnp.float32))
    model.eval()
    return model


def test_base_alone_is_prepared_with_a_larger_crop():
    crops = {name: model_entry(name).preprocessing.crop_pct for name in FAMILY.models}
    assert crops == {**dict.fromkeys(FAMILY.models, 0.875), "inception_next_base": 0.95}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((131, 101), [(32, 25), (16, 12), (8, 6), (4, 3)], marks=pytest.mark.slow),
        ((32, 67), [(8, 16), (4, 8), (2, 4), (1, 2)]),
    ],
)
def test_maps_of_odd_images_are_rounded_down(size, expected):
    model = abstract(depths=(1, 1, 1, 1))
    dims = model.config.dims
    wanted = [(1, *side, channels) for side, channels in zip(expected, dims, strict=True)]
    assert shapes(model, (1, *size, 3)) == wanted


def test_images_that_leave_no_pixel_are_refused():
    message = "images must have at least 32 x 32 pixels, got 31 x 64: a map would be left without"
    with pytest.raises(ValueError, match=re.escape(message)):
        inspect.unwrap(InceptionNeXt.features)(abstract(), jnp.zeros((1, 31, 64, 3)))


def test_a_patch_of_one_pixel_takes_digits():
    model = abstract(patch_size=1, in_channels=1, depths=(1, 1, 1, 1))
    assert [shape[1] for shape in shapes(model, (1, 8, 8, 1))] == [8, 4, 2, 1]


def test_the_mixer_leaves_the_first_channels_and_convolves_a_quarter_three_times():
    mixer = Mixer(8, InceptionNeXtConfig(**NARROW), rngs=nnx.Rngs(0))
    x = draw(2, 6, 7, 8)
    mixed = mixer(x)
    np.testing.assert_array_equal(mixed[..., :2], x[..., :2])
    branches = (mixer.square, mixer.horizontal, mixer.vertical)
    sizes = [branch.kernel[...].shape[:2] for branch in branches]
    assert sizes == [(3, 3), (1, 5), (5, 1)]
    for place, branch in enumerate(branches, start=1):
        channels = slice(2 * place, 2 * place + 2)
        expected = depthwise_conv(x[..., channels], branch.kernel[...], implementation="xla")
        # Biases start at zero. Float32 sums of 9 products at most, in another order.
        np.testing.assert_allclose(mixed[..., channels], expected, rtol=1e-5, atol=1e-6)


def test_without_classes_the_model_returns_the_hidden_layer_of_the_head():
    model = narrow(num_classes=0)
    model.eval()
    assert model.classifier is None
    hidden = model.head(draw(2, 3, 2, 16))
    assert hidden.shape == (2, 3 * 16)
    # Behind a LayerNorm with unit scale: roundings and the epsilon beside the variance.
    np.testing.assert_allclose(np.mean(hidden, -1), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(hidden, -1), 1, atol=2e-2)


def test_dropout_stands_ahead_of_the_classifier_and_rests_in_evaluation():
    model, features = narrow(drop_rate=0.5), draw(2, 3, 2, 16)
    assert np.any(model.head(features) != model.head(features))
    model.eval()
    np.testing.assert_array_equal(model.head(features), model.head(features))


def test_initial_values_are_those_of_the_authors():
    model = narrow(dims=(64, 128))
    block = model.stages[1].blocks[0]
    for kernel in (model.transitions[0].projection.kernel, block.mlp.expand.kernel):
        values = np.asarray(kernel[...])
        # Five standard errors of a std.
        assert abs(values.std() / 0.02 - 1) < 5 / np.sqrt(2 * values.size)
    np.testing.assert_array_equal(block.scale.scale[...], np.float32(1e-6))
    assert not np.any(block.mlp.expand.bias[...])


def test_folded_maps_and_logits_are_those_of_evaluation():
    model, images = scrambled(drop_rate=0.1, drop_path_rate=0.5), draw(2, 33, 40, 3)
    maps, logits = maps_and_logits(model, images)
    folded = fold_batch_norm(model)
    folded_maps, folded_logits = maps_and_logits(folded, images)
    for ours, theirs in zip([*folded_maps, folded_logits], [*maps, logits], strict=True):
        # Float32 rounding, of factors that are multiplied in another order.
        assert golden_baselines.relative_error(ours, np.asarray(theirs)) < 1e-5


def test_nothing_of_batch_norm_and_layer_scale_is_left_by_folding():
    model = narrow(drop_path_rate=0.5)
    before = jax.tree.map(np.array, parameters(model))
    folded = fold_batch_norm(model)
    kinds = {type(module).__name__ for _, module in nnx.iter_modules(folded)}
    assert not kinds & {"BatchNorm", "LayerScale", "Dropout", "DropPath"}
    assert batch_stats(folded) == {}
    assert all(np.array_equal(before[path], after) for path, after in parameters(model).items())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"depths": (1,)}, "need one entry for each stage"),
        ({"band_size": 4}, "band_size=4 must be odd"),
        ({"branch_divisor": 2}, "branch_divisor=2 must be at least 3"),
        ({"dims": (8, 18)}, "dims[1]=18 must be a multiple of branch_divisor=4"),
        ({"patch_size": 0}, "patch_size=0 must be at least 1"),
        ({"implementation": "fast"}, "Unknown implementation 'fast'; allowed: auto, xla"),
        ({"drop_rate": 1.0}, "drop_rate=1.0 must be at least 0 and below 1"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        InceptionNeXtConfig(**{**NARROW, **config})


def test_what_a_file_says_of_a_config_has_to_be_of_the_right_type():
    fields = {**FAMILY.defaults, "band_size": None, "remat": "yes"}
    assert check(fields) == [
        "remat='yes' must be True or False.",
        "band_size=None must be a whole number.",
    ]


@pytest.mark.parametrize(
    ("name", "drop_path", "rate", "warmup"),
    [("", 0.1, 4e-3, 20), ("inception_next_base", 0.4, 4e-3, 20)]
    + [("inception_next_atto", 0.1, 1e-3, 5)],
)
def test_the_recipe_is_that_of_the_authors(name, drop_path, rate, warmup):
    path = Path(__file__).parents[2] / "configs" / "inception_next.py"
    config = runpy.run_path(str(path))["get_config"](name)
    check_config(config)
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.epochs, optimizer.warmup_epochs) == (
        rate,
        300,
        warmup,
    )
    assert (config.model.drop_path_rate, optimizer.clip_norm) == (drop_path, 0.0)
    assert config.data.crop_pct == (0.95 if name.endswith("base") else 0.875)


def test_another_argument_of_the_recipe_is_refused():
    path = Path(__file__).parents[2] / "configs" / "inception_next.py"
    with pytest.raises(ValueError, match="'tiny' is not understood; allowed: inception_next_atto"):
        runpy.run_path(str(path))["get_config"]("tiny")
