"""InceptionNeXt against timm's, its sizes against the published, folding, and what is its own."""

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
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lska_jax import create_model, fold_batch_norm
from lska_jax.analysis.complexity import network_cost
from lska_jax.models.build import abstract_model, array_shapes, config_of
from lska_jax.models.inception_next import InceptionNeXt, Mixer
from lska_jax.models.inception_next_config import FAMILY, InceptionNeXtConfig, check
from lska_jax.models.table import model_entry, section_of
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.ops import depthwise_conv
from lska_jax.training.config_check import check_config

CASES = ["inception_next_tiny__96x64", "inception_next_tiny__96x64_small"]
MORE_CASES = ["inception_next_tiny__131x101", "inception_next_tiny__224x224"]
TRAINED = "inception_next_tiny__96x64_train"

# Parameters and 10^9 multiply-accumulates at 224, measured on timm's.
PUBLISHED = {
    "inception_next_atto": (4_156_520, 0.503),
    "inception_next_tiny": (28_055_680, 4.189),
    "inception_next_small": (49_374_016, 8.356),
    "inception_next_base": (86_672_136, 14.841),
}

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


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
def test_logits_equal_the_reference(case):
    logits, _ = golden_baselines.evaluated(case)
    # Float32 rounding through 18 blocks.
    assert golden_baselines.relative_error(logits, golden_baselines.golden(case)["logits"]) < 1e-5


def test_stage_maps_equal_the_reference():
    case = "inception_next_tiny__96x64"
    stored = golden_baselines.golden(case)
    maps = golden_baselines.evaluated(case)[1]
    assert [stage for stage in range(4) if f"stage{stage}_map" in stored] == [0, 1, 2, 3]
    errors = [
        golden_baselines.relative_error(of_stage, stored[f"stage{stage}_map"])
        for stage, of_stage in enumerate(maps)
    ]
    # Float32 rounding through 3 to 18 blocks.
    assert max(errors) < 1e-5, errors


def test_the_training_loss_equals_the_reference():
    expected = float(golden_baselines.golden(TRAINED)["train_loss"])
    assert golden_baselines.trained(TRAINED)[0] == pytest.approx(expected, rel=1e-5)


def test_every_gradient_equals_the_reference_and_biases_ahead_of_a_norm_have_none():
    errors, stored = golden_baselines.gradient_errors(TRAINED), golden_baselines.golden(TRAINED)
    # Of the stem and of each mixer's three convolutions; errors are norms there.
    assert sum(stored[f"grad/{name}"][0] == 0 for name in errors) == 58
    # Float32 through a forward and a backward pass of 18 blocks.
    assert {name: error for name, error in errors.items() if not error < 1e-4} == {}


def test_running_statistics_after_one_step_equal_the_reference():
    errors = golden_baselines.statistics_errors(TRAINED)
    # Stem, 18 blocks, 3 transitions: a mean and a variance each. Float32 rounding.
    assert len(errors) == 2 * (1 + 18 + 3)
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_named_model_has_the_published_parameters(name):
    found = array_shapes(config_of(section_of(name)))
    trainable = (s for path, s in found.items() if not path.endswith(("/mean", "/var")))
    assert sum(int(np.prod(shape)) for shape in trainable) == PUBLISHED[name][0]


@pytest.mark.parametrize(
    "name",
    [n if n.endswith("atto") else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED],
)
def test_a_named_model_costs_what_is_published(name):
    cost = network_cost(config_of(section_of(name)))
    assert (cost.parameters, round(cost.macs / 1e9, 3)) == PUBLISHED[name]


def test_base_alone_is_prepared_with_a_larger_crop():
    crops = {name: model_entry(name).preprocessing.crop_pct for name in PUBLISHED}
    assert crops == {**dict.fromkeys(PUBLISHED, 0.875), "inception_next_base": 0.95}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((131, 101), [(32, 25), (16, 12), (8, 6), (4, 3)]),
        ((32, 67), [(8, 16), (4, 8), (2, 4), (1, 2)]),
    ],
)
def test_maps_of_odd_images_are_rounded_down(size, expected):
    model = abstract()
    dims = model.config.dims
    wanted = [(1, *side, channels) for side, channels in zip(expected, dims, strict=True)]
    assert shapes(model, (1, *size, 3)) == wanted


def test_images_that_leave_no_pixel_are_refused():
    message = "images must have at least 32 x 32 pixels, got 31 x 64: a map would be left without"
    with pytest.raises(ValueError, match=re.escape(message)):
        inspect.unwrap(InceptionNeXt.features)(abstract(), jnp.zeros((1, 31, 64, 3)))


def test_a_patch_of_one_pixel_takes_digits():
    model = abstract(patch_size=1, in_channels=1)
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


def test_drop_path_rates_grow_linearly_over_all_blocks():
    model = narrow(depths=(2, 3), drop_path_rate=0.2)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2], atol=1e-12)


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


def training_step(model: InceptionNeXt):
    """Return a function of parameters and images to loss and gradients in training, and them."""
    functions, stats = ModelFunctions(model), batch_stats(model)

    def loss(params, images):
        logits, updated = functions.train(params, stats, images, key=jax.random.key(5))
        return jnp.mean(jnp.square(logits)), updated

    return jax.value_and_grad(loss, has_aux=True), parameters(model)


def test_gradients_with_drop_path_and_dropout_are_finite():
    run, params = training_step(narrow(drop_path_rate=0.5, drop_rate=0.2))
    (value, updated), gradients = jax.jit(run)(params, draw(4, 20, 17, 3))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(array)) for array in (*gradients.values(), *updated.values()))
    assert any(np.any(gradient) for gradient in gradients.values())


@pytest.mark.slow
def test_rematerialisation_changes_neither_loss_nor_statistics_nor_gradients():
    found = []
    for remat in (False, True):
        run, params = training_step(narrow(drop_path_rate=0.5, drop_rate=0.2, remat=remat))
        found.append(jax.jit(run)(params, draw(4, 20, 17, 3)))
    for plain, again in zip(*map(jax.tree.leaves, found), strict=True):
        # The same operations, fused otherwise: float32 roundings.
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_batch_on_two_devices_has_the_gradients_and_statistics_of_one():
    images = draw(4, 20, 17, 3)
    run, params = training_step(narrow())
    expected = jax.jit(run)(params, images)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    with jax.set_mesh(mesh):
        found = jax.jit(run)(whole, split)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # Sums over the batch in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_bfloat16_maps_are_near_the_float32_ones_and_logits_float32():
    images = draw(2, 20, 17, 3)
    exact, rounded = (
        maps_and_logits(scrambled(dtype=dtype), images) for dtype in ("float32", "bfloat16")
    )
    assert rounded[1].dtype == jnp.float32
    for ours, theirs in zip(rounded[0], exact[0], strict=True):
        assert ours.dtype == jnp.bfloat16
        # Some roundings of 2**-9, a few after each other.
        assert golden_baselines.relative_error(ours.astype(jnp.float32), np.asarray(theirs)) < 0.02


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
