"""PVT v2 against timm's, its sizes against the published, and what is its own."""

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

from lska_jax import create_model
from lska_jax.analysis.complexity import network_cost
from lska_jax.models.build import abstract_model, array_shapes, config_of
from lska_jax.models.pvt_v2 import PVTv2, attend
from lska_jax.models.pvt_v2_config import FAMILY, PVTv2Config, check
from lska_jax.models.table import section_of
from lska_jax.nn.functional import ModelFunctions, parameters
from lska_jax.training.config_check import check_config

CASES = ["pvt_v2_b0__96x64", "pvt_v2_b0__96x64_small"]
MORE_CASES = [
    "pvt_v2_b0__131x101",
    "pvt_v2_b0__224x224",
    "pvt_v2_b2__96x128",
    "pvt_v2_b2_li__131x101",
]
TRAINED = "pvt_v2_b0__96x64_train"

# Parameters and 10^9 multiply-accumulates at 224, measured on timm's.
PUBLISHED = {
    "pvt_v2_b0": (3_666_760, 0.566),
    "pvt_v2_b1": (14_009_000, 2.108),
    "pvt_v2_b2": (25_362_856, 4.027),
    "pvt_v2_b2_li": (22_553_512, 3.889),
    "pvt_v2_b3": (45_238_696, 6.897),
    "pvt_v2_b4": (62_556_072, 10.101),
    "pvt_v2_b5": (81_956_008, 11.717),
}

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
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
def test_logits_equal_the_reference(case):
    logits, _ = golden_baselines.evaluated(case)
    # Float32 rounding through 8 to 16 blocks.
    assert golden_baselines.relative_error(logits, golden_baselines.golden(case)["logits"]) < 1e-5


def test_stage_maps_equal_the_reference():
    case = "pvt_v2_b0__96x64"
    stored = golden_baselines.golden(case)
    maps = golden_baselines.evaluated(case)[1]
    assert [stage for stage in range(4) if f"stage{stage}_map" in stored] == [0, 1, 2, 3]
    errors = [
        golden_baselines.relative_error(of_stage, stored[f"stage{stage}_map"])
        for stage, of_stage in enumerate(maps)
    ]
    # Float32 rounding through 2 to 8 blocks.
    assert max(errors) < 1e-5, errors


def test_the_training_loss_equals_the_reference():
    expected = float(golden_baselines.golden(TRAINED)["train_loss"])
    assert golden_baselines.trained(TRAINED)[0] == pytest.approx(expected, rel=1e-5)


def test_every_gradient_equals_the_reference_in_norm_and_along_a_probe():
    errors = golden_baselines.gradient_errors(TRAINED)
    # Float32 through a forward and a backward pass of 8 blocks.
    assert {name: error for name, error in errors.items() if not error < 1e-4} == {}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_named_model_has_the_published_parameters(name):
    found = array_shapes(config_of(section_of(name)))
    assert sum(int(np.prod(shape)) for shape in found.values()) == PUBLISHED[name][0]


@pytest.mark.parametrize(
    "name",
    [n if n == "pvt_v2_b0" else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED],
)
def test_a_named_model_costs_what_is_published(name):
    cost = network_cost(config_of(section_of(name)))
    assert (cost.parameters, round(cost.macs / 1e9, 3)) == PUBLISHED[name]


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


def test_drop_path_rates_grow_linearly_over_all_blocks():
    model = narrow(depths=(2, 3), drop_path_rate=0.2)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2], atol=1e-12)


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


def training_step(model: PVTv2, images: jax.Array):
    """Return a function of the parameters to loss and gradients in training mode, and them."""
    functions = ModelFunctions(model)

    def loss(params, images):
        logits, _ = functions.train(params, {}, images, key=jax.random.key(5))
        return jnp.mean(jnp.square(logits))

    return jax.value_and_grad(loss), parameters(model)


@pytest.mark.parametrize("fields", [NARROW, pytest.param(LINEAR, marks=pytest.mark.slow)])
def test_gradients_with_drop_path_and_dropout_are_finite(fields):
    images = draw(4, 20, 17, 3)
    run, params = training_step(narrow(drop_path_rate=0.5, drop_rate=0.2, **fields), images)
    value, gradients = jax.jit(run)(params, images)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())
    assert any(np.any(gradient) for gradient in gradients.values())


@pytest.mark.slow
def test_rematerialisation_changes_neither_loss_nor_gradients():
    images = draw(4, 20, 17, 3)
    found = []
    for remat in (False, True):
        model = narrow(drop_path_rate=0.5, drop_rate=0.2, remat=remat)
        run, params = training_step(model, images)
        found.append(jax.jit(run)(params, images))
    for plain, again in zip(*map(jax.tree.leaves, found), strict=True):
        # The same operations, fused otherwise: float32 roundings.
        np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [NARROW, LINEAR])
def test_a_batch_on_two_devices_has_the_gradients_of_one(fields):
    images = draw(4, 20, 17, 3)
    run, params = training_step(narrow(**fields), images)
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
    run = nnx.jit(lambda model: (model.features(images), model(images)))
    exact, rounded = (run(narrow(dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert rounded[1].dtype == jnp.float32
    for ours, theirs in zip(rounded[0], exact[0], strict=True):
        assert ours.dtype == jnp.bfloat16
        # Some roundings of 2**-9 of values up to 3, a few after each other.
        assert np.abs(np.asarray(ours, np.float32) - theirs).max() < 0.1


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
