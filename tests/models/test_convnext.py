"""ConvNeXt: golden outputs, sizes, head, modes, options and errors."""

import inspect
import math
import re

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from lska_jax import create_model, fold_batch_norm
from lska_jax.analysis.complexity import network_cost
from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.convnext import ConvNeXt
from lska_jax.models.convnext_config import ConvNeXtConfig
from lska_jax.models.table import section_of
from lska_jax.nn.functional import ModelFunctions, parameters

CASES = ("convnext_tiny__96x64", "convnext_tiny__96x64_small")
MORE_CASES = ("convnext_tiny__131x101", "convnext_tiny__224x224", "convnext_small__96x128")
TRAINED = "convnext_tiny__96x64_train"
# Parameters at 1000 classes, and multiply-accumulates at 224 x 224 in units of 1e9, of timm's.
COSTS = {
    "convnext_tiny": (28_589_128, 4.456),
    "convnext_small": (50_223_688, 8.684),
    "convnext_base": (88_591_464, 15.355),
    "convnext_large": (197_767_336, 34.361),
    "convnext_xlarge": (350_196_968, 60.921),
}
NARROW = {"dims": (4, 6), "depths": (1, 2), "num_classes": 5, "implementation": "xla"}
# The same operations, fused otherwise: float32 roundings.
FUSED = {"rtol": 1e-4, "atol": 1e-5}


def narrow(**config) -> ConvNeXt:
    return create_model("convnext_tiny", **{**NARROW, **config})


def lively(**config) -> ConvNeXt:
    """Return a model in evaluation mode whose every parameter is far from its initial value."""
    model = narrow(**config)
    rng = np.random.default_rng(0)
    for _, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        drawn = variable[...] + 0.5 * rng.standard_normal(variable.shape)
        variable.set_value(jnp.asarray(drawn, jnp.float32))
    model.eval()
    return model


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def shapes(model: ConvNeXt, images: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [stage.shape for stage in jax.eval_shape(model.features, jnp.zeros(images))]


@nnx.jit
def maps_and_logits(model: ConvNeXt, images: jax.Array):
    return model.features(images), model(images)


@pytest.mark.parametrize("name", COSTS)
def test_parameters_are_those_of_the_reference(name):
    shapes = array_shapes(config_of(section_of(name)))
    assert sum(map(math.prod, shapes.values())) == COSTS[name][0]


@pytest.mark.parametrize(
    "name", ["convnext_tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in list(COSTS)[1:])]
)
def test_multiply_accumulates_are_those_of_the_reference(name):
    assert round(network_cost(config_of(section_of(name))).macs / 1e9, 3) == COSTS[name][1]


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
def test_logits_equal_the_reference(case):
    logits, _ = golden_baselines.evaluated(case)
    # Float32 rounding through 18 or 36 blocks.
    assert golden_baselines.relative_error(logits, golden_baselines.golden(case)["logits"]) < 1e-5


def test_maps_of_the_stages_equal_the_reference():
    stored = golden_baselines.golden("convnext_tiny__96x64")
    _, maps = golden_baselines.evaluated("convnext_tiny__96x64")
    assert len(maps) == 4
    for stage, found in enumerate(maps):
        assert golden_baselines.relative_error(found, stored[f"stage{stage}_map"]) < 1e-5


def test_training_loss_and_every_gradient_equal_the_reference():
    loss, _, _ = golden_baselines.trained(TRAINED)
    expected = golden_baselines.golden(TRAINED)["train_loss"].item()
    assert loss == pytest.approx(expected, rel=1e-5)
    errors = golden_baselines.gradient_errors(TRAINED)
    # Float32 through a forward and a backward pass of 18 blocks.
    assert {name: error for name, error in errors.items() if not error < 1e-4} == {}


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((224, 224), [(56, 56), (28, 28)]),
        ((33, 200), [(8, 50), (4, 25)]),
        ((23, 15), [(5, 3), (2, 1)]),
        ((8, 8), [(2, 2), (1, 1)]),
    ],
)
def test_maps_are_halved_and_rounded_down(size, sides):
    wanted = [(2, *side, c) for side, c in zip(sides, NARROW["dims"], strict=True)]
    assert shapes(narrow(), (2, *size, 3)) == wanted


def test_pixels_left_over_by_the_patches_are_not_seen():
    model, images = lively(), draw(1, 16, 24, 3)
    wider = jnp.pad(images, ((0, 0), (0, 3), (0, 3), (0, 0)), constant_values=9.0)
    (maps, _), (of_wider, _) = maps_and_logits(model, images), maps_and_logits(model, wider)
    for cut, whole in zip(maps, of_wider, strict=True):
        np.testing.assert_allclose(whole, cut, **FUSED)


@pytest.mark.parametrize(("patch_size", "sides"), [(1, [32, 16]), (2, [16, 8])])
def test_smaller_patches_keep_small_images_large(patch_size, sides):
    model = narrow(patch_size=patch_size)
    assert [shape[1] for shape in shapes(model, (1, 32, 32, 3))] == sides


def test_images_that_leave_no_pixel_are_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="at least 8 x 8 pixels, got 8 x 7: a map would be"):
        narrow().features(jnp.zeros((1, 8, 7, 3)))


@pytest.mark.parametrize("shape", [(32, 32, 3), (2, 32, 32, 4), (2, 3, 32, 32)])
def test_images_of_another_shape_are_refused_with_what_is_allowed(shape):
    with pytest.raises(ValueError, match=r"shape \(B, H, W, 3\), got") as refusal:
        inspect.unwrap(ConvNeXt.features)(narrow(), jnp.zeros(shape))
    assert str(shape) in str(refusal.value)


def test_the_head_normalises_behind_the_mean():
    model, features = lively(), draw(2, 3, 2, 6)
    pooled = np.mean(np.asarray(features), (1, 2), dtype=np.float64)
    centred = pooled - pooled.mean(-1, keepdims=True)
    whitened = centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-6)
    expected = whitened * np.asarray(model.norm.scale[...]) + np.asarray(model.norm.bias[...])
    kernel, bias = (np.asarray(p[...]) for p in (model.classifier.kernel, model.classifier.bias))
    np.testing.assert_allclose(model.head(features), expected @ kernel + bias, **FUSED)
    model.classifier = nnx.data(None)
    np.testing.assert_allclose(model.head(features), expected, **FUSED)


def test_without_classes_the_model_returns_pooled_features():
    model = narrow(num_classes=0)
    assert model.classifier is None
    assert jax.eval_shape(model, jnp.zeros((2, 8, 8, 3))).shape == (2, 6)


def test_a_block_starts_as_nearly_nothing():
    block, x = narrow().stages[0].blocks[0], draw(1, 5, 5, 4)
    np.testing.assert_array_equal(block.scale.scale[...], np.full(4, 1e-6, np.float32))
    np.testing.assert_allclose(block(x), x, atol=1e-5)


def test_kernels_start_normal_with_std_0_02_and_biases_zero():
    block = narrow(dims=(128,), depths=(1,)).stages[0].blocks[0]
    for layer in (block.depthwise, block.mlp.expand, block.mlp.project):
        kernel = np.asarray(layer.kernel[...])
        # Five standard errors of a std over at least 6272 samples.
        assert abs(kernel.std() / 0.02 - 1) < 5 / np.sqrt(2 * kernel.size)
        assert not np.any(layer.bias[...])


def test_drop_path_rates_grow_linearly_over_all_blocks():
    model = narrow(depths=(2, 3), drop_path_rate=0.2)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2], atol=1e-12)


def loss_of(model: ConvNeXt):
    """Return the training loss by parameters and images, and the parameters."""
    functions = ModelFunctions(model)

    def loss(params, images):
        logits, stats = functions.train(params, {}, images, key=jax.random.key(3))
        assert stats == {}
        return jnp.sum(jnp.square(logits))

    return loss, parameters(model)


def test_gradients_are_finite_and_reach_every_parameter_with_drop_path():
    loss, params = loss_of(lively(drop_path_rate=0.3))
    gradients = jax.jit(jax.grad(loss))(params, draw(8, 16, 16, 3))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients.values())
    assert [path for path, gradient in gradients.items() if not np.any(gradient)] == []


def test_drop_path_changes_the_output_from_call_to_call_in_training_only():
    model, images = lively(drop_path_rate=0.5), draw(16, 8, 8, 3)
    run = nnx.jit(lambda model: model(images))
    np.testing.assert_array_equal(run(model), run(model))
    model.train()
    assert np.any(run(model) != run(model))


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient():
    found = []
    for remat in (False, True):
        loss, params = loss_of(lively(drop_path_rate=0.3, remat=remat))
        found.append(jax.jit(jax.grad(loss))(params, draw(4, 16, 16, 3)))
    for path, gradient in found[0].items():
        np.testing.assert_allclose(found[1][path], gradient, **FUSED, err_msg=path)


@pytest.mark.slow
def test_gradients_of_a_sharded_batch_are_those_of_one_device():
    loss, params = loss_of(lively(implementation="auto"))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    images = draw(4, 16, 16, 3)
    expected = jax.jit(jax.grad(loss))(params, images)
    split = jax.device_put(images, jax.NamedSharding(mesh, PartitionSpec("data")))
    whole = jax.device_put(params, jax.NamedSharding(mesh, PartitionSpec()))
    found = jax.jit(jax.grad(loss))(whole, split)
    for path, gradient in expected.items():
        scale = np.abs(gradient).max() + 1e-3
        np.testing.assert_allclose(found[path] / scale, gradient / scale, atol=1e-4, err_msg=path)


def test_bfloat16_keeps_parameters_gradients_and_logits_in_float32():
    loss, params = loss_of(narrow(dtype=jnp.bfloat16))
    value, gradients = jax.eval_shape(jax.value_and_grad(loss), params, jnp.zeros((2, 8, 8, 3)))
    leaves = [value, *params.values(), *gradients.values()]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_bfloat16_maps_are_bfloat16_and_near_the_float32_ones():
    images = draw(2, 16, 16, 3)
    for exact, found in zip(
        maps_and_logits(lively(), images)[0],
        maps_and_logits(lively(dtype=jnp.bfloat16), images)[0],
        strict=True,
    ):
        assert found.dtype == jnp.bfloat16
        # Some roundings of 2**-9, a few after each other.
        error = np.abs(np.asarray(found, np.float32) - exact).max()
        assert error < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("num_classes", [5, 0])
def test_folding_changes_no_map_and_no_logit(num_classes):
    model, images = lively(num_classes=num_classes), draw(2, 17, 24, 3)
    maps, logits = maps_and_logits(model, images)
    folded = fold_batch_norm(model)
    folded_maps, folded_logits = maps_and_logits(folded, images)
    for ours, theirs in zip([*folded_maps, folded_logits], [*maps, logits], strict=True):
        # Float32 rounding, of factors that are multiplied in another order.
        assert golden_baselines.relative_error(ours, np.asarray(theirs)) < 1e-5
    left = {path.rpartition("/")[2] for path in parameters(folded) if "blocks" in path}
    assert left == {"kernel", "bias"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"dims": (4, 6, 8)}, "need one entry for each stage"),
        ({"depths": ()}, "depths=() must have one whole number for each stage"),
        ({"patch_size": 0}, "patch_size=0 must be at least 1"),
        ({"num_classes": -1}, "num_classes=-1 must be at least 0"),
        ({"in_channels": 0}, "in_channels=0 must be at least 1"),
        ({"dtype": "float16"}, "dtype='float16' is unknown; allowed: float32, bfloat16"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and below 1"),
        ({"implementation": "fast"}, "Unknown implementation 'fast'; allowed: auto, xla"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ConvNeXtConfig(**config)
