"""ConvNeXt: sizes, head, initial values, folding and errors; test_families.py has the rest."""

import inspect
import re

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model, fold_batch_norm
from lska_jax.models.convnext import ConvNeXt
from lska_jax.models.convnext_config import ConvNeXtConfig
from lska_jax.nn.functional import parameters

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_drop_path_changes_the_output_from_call_to_call_in_training_only():
    model, images = lively(drop_path_rate=0.5), draw(16, 8, 8, 3)
    run = nnx.jit(lambda model: model(images))
    np.testing.assert_array_equal(run(model), run(model))
    model.train()
    assert np.any(run(model) != run(model))


@pytest.mark.parametrize("num_classes", [5, pytest.param(0, marks=pytest.mark.slow)])
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
