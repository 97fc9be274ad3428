"""The Visual Attention Network: maps, head, modes, options and errors."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from lska_jax import VAN, VANConfig, create_model
from lska_jax.models import network
from lska_jax.models.build import abstract_model, config_of
from lska_jax.models.table import section_of
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters

# A first stage and a later one; all four, at their real widths, are those of test_golden.py.
NARROW = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2), "k": 7}
ONE_STAGE = {"dims": (4,), "depths": (2,), "ffn_ratios": (2,)}
ONE_BLOCK = {**ONE_STAGE, "depths": (1,)}
# The same operations, fused otherwise: float32 roundings.
FUSED = {"rtol": 1e-4, "atol": 1e-5}


def narrow(**config) -> VAN:
    settings = {"num_classes": 5, "implementation": "xla", **NARROW, **config}
    return create_model("van_lska_tiny", **settings)


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def shapes(model: VAN, images: tuple[int, ...]) -> list[tuple[int, ...]]:
    maps = jax.eval_shape(lambda x: model.features(x), jnp.zeros(images))
    return [stage.shape for stage in maps]


def output(model: VAN, images: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda x: model(x), jnp.zeros(images))


@nnx.jit
def logits_and_maps(model: VAN, images: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return model(images), model.features(images)


IMAGES = draw(2, 40, 33, 3)


def dropping(**config) -> VAN:
    """Return a model in evaluation mode that would drop much in training."""
    model = narrow(drop_path_rate=0.5, drop_rate=0.5, **config)
    model.eval()
    return model


@pytest.fixture(scope="module")
def evaluated() -> VAN:
    return dropping()


@pytest.fixture(scope="module")
def results(evaluated) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Logits and maps of IMAGES: most tests look at these."""
    return logits_and_maps(evaluated, IMAGES)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), [(56, 56), (28, 28)]),
        ((33, 200), [(9, 50), (5, 25)]),
        ((1, 1), [(1, 1), (1, 1)]),
    ],
)
def test_features_are_one_map_a_stage_at_any_size_and_aspect(evaluated, size, expected):
    wanted = [(2, *s, c) for s, c in zip(expected, NARROW["dims"], strict=True)]
    assert shapes(evaluated, (2, *size, 3)) == wanted


def test_no_images_have_no_logits():
    model = narrow(implementation="auto")
    model.eval()
    assert output(model, (0, 33, 40, 3)).shape == (0, 5)


def share_loss(implementation: str):
    """Return the training loss of a share of a batch by parameters and images, and parameters."""
    functions = ModelFunctions(model := narrow(implementation=implementation, **ONE_BLOCK))
    stats = batch_stats(model)

    def loss(params, images):
        logits, _ = functions.train(params, stats, images, key=jax.random.key(0))
        return jnp.sum(jnp.square(logits))

    return loss, parameters(model)


@pytest.fixture(scope="module")
def gradients_of_two_shares():
    loss, params = share_loss("xla")
    images = draw(4, 16, 16, 3)
    return jax.jit(jax.grad(lambda params: loss(params, images[:2]) + loss(params, images[2:])))(
        params
    )


@pytest.mark.parametrize(
    "implementation",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("auto", "xla", "toeplitz")],
)
def test_gradients_under_shard_map_are_those_of_the_devices_shares(
    implementation, gradients_of_two_shares
):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()
    loss, params = share_loss(implementation)

    def total(params, images):
        return jax.lax.psum(loss(params, images), "data")

    sharded = jax.shard_map(total, mesh=mesh, in_specs=(whole, split), out_specs=whole)
    found = jax.jit(jax.grad(sharded))(params, draw(4, 16, 16, 3))
    for path, gradient in gradients_of_two_shares.items():
        scale = np.abs(gradient).max() + 1e-3
        np.testing.assert_allclose(found[path] / scale, gradient / scale, atol=1e-4, err_msg=path)


@pytest.mark.parametrize(("stride", "sides"), [(1, [32, 16]), (2, [16, 8])])
def test_a_smaller_stem_stride_keeps_small_images_large(stride, sides):
    model = narrow(stem_stride=stride)
    model.eval()
    assert [shape[1] for shape in shapes(model, (1, 32, 32, 3))] == sides


def test_logits_are_the_head_of_the_last_feature_map(evaluated, results):
    logits, maps = results
    assert logits.shape == (2, 5)
    np.testing.assert_allclose(logits, evaluated.head(maps[-1]), **FUSED)


def test_the_head_is_the_mean_over_positions_and_a_linear_layer(evaluated):
    features = draw(2, 3, 2, 6)
    kernel, bias = evaluated.classifier.kernel[...], evaluated.classifier.bias[...]
    expected = np.mean(np.asarray(features), (1, 2)) @ np.asarray(kernel) + np.asarray(bias)
    # Sums of six products in float32.
    np.testing.assert_allclose(evaluated.head(features), expected, rtol=1e-5, atol=1e-6)


def test_each_map_is_normalised_over_its_channels(results):
    for stage in results[1]:
        # LayerNorm with unit scale: roundings of float32 and the epsilon beside the variance.
        np.testing.assert_allclose(np.mean(stage, -1), 0, atol=1e-5)
        np.testing.assert_allclose(np.var(stage, -1), 1, atol=2e-2)


def test_without_classes_the_model_returns_pooled_features(results):
    model = narrow(num_classes=0)
    model.eval()
    assert model.classifier is None
    assert output(model, IMAGES.shape).shape == (2, 6)
    last = results[1][-1]
    np.testing.assert_allclose(model.head(last), np.mean(last, (1, 2)), **FUSED)


def test_images_may_have_any_number_of_channels():
    model = narrow(in_channels=7)
    model.eval()
    assert output(model, (2, 32, 32, 7)).shape == (2, 5)


def test_images_may_be_numpy_arrays_of_any_floating_dtype(evaluated, results):
    images = np.asarray(IMAGES, np.float64)
    # A constant of the program: as an argument it would have become an array of JAX's before.
    np.testing.assert_allclose(jax.jit(lambda: evaluated(images))(), results[0], **FUSED)


@pytest.mark.parametrize("shape", [(32, 32, 3), (2, 32, 32, 4), (2, 3, 32, 32)])
def test_images_of_another_shape_are_refused_with_what_is_allowed(evaluated, shape):
    with pytest.raises(ValueError, match=r"shape \(B, H, W, 3\), got") as refusal:
        inspect.unwrap(VAN.features)(evaluated, jnp.zeros(shape))
    assert str(shape) in str(refusal.value)


def test_drop_path_rates_grow_linearly_over_all_blocks():
    model = narrow(depths=(2, 3), drop_path_rate=0.2)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2], atol=1e-12)


def test_drop_path_of_a_single_block_network_is_zero():
    model = narrow(**ONE_BLOCK, drop_path_rate=0.2)
    assert model.stages[0].blocks[0].drop_path.rate == 0


def test_the_head_starts_normal_with_std_0_02_and_no_bias():
    kernel = np.asarray(narrow(num_classes=2000).classifier.kernel[...])
    # Five standard errors of a std over 12000 samples.
    assert abs(kernel.std() / 0.02 - 1) < 5 / np.sqrt(2 * kernel.size)
    assert not np.any(narrow().classifier.bias[...])


def test_the_attention_module_adds_its_input():
    attention = narrow().stages[0].blocks[0].attention
    attention.proj_out.kernel.set_value(jnp.zeros((4, 4)))
    x = draw(2, 5, 5, 4)
    np.testing.assert_array_equal(nnx.jit(lambda attention, x: attention(x))(attention, x), x)


def test_a_block_adds_its_scaled_branches_one_after_the_other():
    block = narrow().stages[0].blocks[0]
    block.eval()
    for scale, value in ((block.scale_1, 0.5), (block.scale_2, 2.0)):
        scale.scale.set_value(jnp.full(4, value))

    @nnx.jit
    def run(block, x):
        middle = x + 0.5 * block.attention(block.norm_1(x))
        return block(x), middle + 2.0 * block.ffn(block.norm_2(middle))

    np.testing.assert_allclose(*run(block, draw(2, 5, 5, 4)), **FUSED)


def test_the_shortcut_of_the_attention_is_of_the_normalised_input():
    block = narrow().stages[0].blocks[0]
    block.eval()
    block.norm_1.mean.set_value(jnp.full(4, 3.0))
    block.attention.proj_out.kernel.set_value(jnp.zeros((4, 4)))
    block.scale_1.scale.set_value(jnp.ones(4))
    block.scale_2.scale.set_value(jnp.zeros(4))
    x = jnp.asarray(draw(2, 5, 5, 4))
    out = nnx.jit(lambda block, x: block(x))(block, x)
    # x + (x - 3) / sqrt(1 + 1e-5), in float32.
    np.testing.assert_allclose(out, x + (x - 3) / np.sqrt(1 + 1e-5), rtol=1e-5, atol=1e-6)


def test_evaluation_mode_is_deterministic_and_keeps_the_statistics(evaluated, results):
    before = jax.tree.map(np.array, batch_stats(evaluated))
    np.testing.assert_array_equal(logits_and_maps(evaluated, IMAGES)[0], results[0])
    after = batch_stats(evaluated)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    # As they started: neither call has moved them.
    assert all(np.all(a == float(path.endswith("var"))) for path, a in after.items())


def test_training_mode_normalises_by_the_batch_and_moves_the_statistics():
    model = narrow(**ONE_STAGE)
    images = 5 + draw(4, 16, 16, 3)
    run = nnx.jit(lambda model: model(images))
    model.eval()
    by_statistics = run(model)
    model.train()
    by_batch = run(model)
    assert np.abs(by_statistics - by_batch).max() > 1e-3
    assert all(np.any(a != float(path.endswith("var"))) for path, a in batch_stats(model).items())


def test_drop_path_changes_the_output_from_call_to_call_in_training():
    model = narrow(drop_path_rate=0.9, **ONE_STAGE)
    images = draw(4, 16, 16, 3)
    run = nnx.jit(lambda model: model(images))
    assert np.any(run(model) != run(model))


def training_step(model: VAN, images: jax.Array):
    """Return a function to logits, statistics and gradients, and its arguments."""
    functions = ModelFunctions(model)

    def run(params, stats):
        def loss(params):
            logits, updated = functions.train(params, stats, images, key=jax.random.key(5))
            return jnp.sum(jnp.square(logits)), (logits, updated)

        (_, (logits, updated)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return logits, updated, gradient

    return run, parameters(model), batch_stats(model)


@pytest.mark.slow
def test_rematerialisation_changes_neither_outputs_nor_statistics_nor_gradients(monkeypatch):
    # On CPU blocks are not computed again.
    monkeypatch.setattr(network, "target_platform", lambda: "tpu")
    found = []
    for remat in (False, True):
        model = narrow(drop_path_rate=0.3, drop_rate=0.2, remat=remat, **ONE_STAGE)
        run, *arguments = training_step(model, draw(4, 17, 16, 3))
        found.append(jax.jit(run)(*arguments))
    assert jax.tree.structure(found[0]) == jax.tree.structure(found[1])
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        # Biases ahead of a BatchNorm have gradients of rounding noise only, of 1e-6 or so.
        np.testing.assert_allclose(a, b, **FUSED)


def test_rematerialisation_keeps_fewer_values_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr(network, "target_platform", lambda: "tpu")

    def residuals(remat: bool) -> int:
        model = narrow(remat=remat, **ONE_STAGE)
        functions, stats = ModelFunctions(model), batch_stats(model)
        images = jnp.zeros((2, 64, 64, 3))

        def forward(params):
            return functions.train(params, stats, images, key=jax.random.key(0))[0]

        _, pullback = jax.eval_shape(lambda params: jax.vjp(forward, params), parameters(model))
        return sum(leaf.size for leaf in jax.tree.leaves(pullback))

    assert residuals(True) < 0.5 * residuals(False)


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
    run, params, stats = training_step(narrow(dtype=jnp.bfloat16), draw(4, 32, 32, 3))
    # Of the arrays and of what is computed from them: logits, statistics, gradients.
    leaves = [
        *params.values(),
        *stats.values(),
        *jax.tree.leaves(jax.eval_shape(run, params, stats)),
    ]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_bfloat16_maps_are_bfloat16_and_near_the_float32_ones(results):
    maps = nnx.jit(lambda model: model.features(IMAGES))(dropping(dtype=jnp.bfloat16))
    for expected, stage in zip(results[1], maps, strict=True):
        assert stage.dtype == jnp.bfloat16
        # Some roundings of 2**-9 of values up to 3, a few after each other.
        assert np.abs(np.asarray(stage, np.float32) - expected).max() < 0.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"attention": "lsk"}, "attention='lsk' is unknown; allowed: lska, lka"),
        (
            {"attention": "lska_trivial", "dilation": 3},
            "dilation=3: lska_trivial has no dilation; leave it None.",
        ),
        ({"dims": (4, 6)}, "need one entry for each stage"),
        ({"dims": ()}, "dims=() must have one whole number for each stage"),
        ({"num_classes": -1}, "num_classes=-1 must be at least 0"),
        ({"in_channels": 0}, "in_channels=0 must be at least 1"),
        ({"stem_stride": 0}, "stem_stride=0 must be at least 1"),
        ({"dtype": "float16"}, "dtype='float16' is unknown; allowed: float32, bfloat16"),
        ({"implementation": "fast"}, "Unknown implementation 'fast'; allowed: auto, xla"),
        ({"drop_rate": 1.0}, "drop_rate=1.0 must be at least 0 and below 1"),
        ({"drop_path_rate": -0.1}, "drop_path_rate=-0.1 must be at least 0 and below 1"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        VANConfig(**config)


def test_maps_have_names_and_places():
    model = abstract_model(config_of(section_of("van_lska_tiny", depths=(1, 1, 1, 1))))
    images = jnp.zeros((1, 32, 32, 3))
    maps = nnx.eval_shape(lambda model, images: model.features(images), model, images)
    assert maps._fields == ("stage1", "stage2", "stage3", "stage4")
    assert maps.stage2.shape == maps[1].shape == (1, 4, 4, 64)
