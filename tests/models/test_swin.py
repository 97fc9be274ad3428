"""The Swin Transformer: its windows, masks, biases, sizes and errors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model
from lska_jax.models.build import array_shapes, build
from lska_jax.models.swin_config import FAMILY, SwinConfig, Windows
from lska_jax.models.swin_windows import attend_within_windows, relative_bias, shift_mask
from lska_jax.nn.functional import ModelFunctions, parameters
from lska_jax.training.optimizer import decay_mask

TINY = "swin_tiny_patch4_window7_224"
# Two stages of maps of 16 and 8 pixels: the first shifts its windows, the second never does.
NARROW = {
    "dims": (8, 16),
    "depths": (2, 1),
    "heads": (2, 4),
    "window": 8,
    "patch_size": 2,
    "image_size": 32,
    "num_classes": 5,
}


def narrow(**config) -> nnx.Module:
    return build(SwinConfig(**{**NARROW, **config}), rngs=nnx.Rngs(0))


def draw(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(len(shape)), shape)


def loss_and_gradients(model: nnx.Module, images: jax.Array) -> tuple:
    functions = ModelFunctions(model)

    @jax.jit
    def run(params):
        def loss(params):
            logits, _ = functions.train(params, {}, images, key=jax.random.key(5))
            return jnp.sum(jnp.square(logits))

        return jax.value_and_grad(loss)(params)

    return run(parameters(model))


def test_the_bias_of_two_pixels_is_that_of_their_distance():
    side, heads = 3, 2
    table = np.arange((2 * side - 1) ** 2 * heads, dtype=np.float32).reshape(-1, heads)
    bias = np.asarray(relative_bias(jnp.asarray(table), side))
    for query, key in np.ndindex(side**2, side**2):
        rows, columns = query // side - key // side, query % side - key % side
        distance = (rows + side - 1) * (2 * side - 1) + columns + side - 1
        np.testing.assert_array_equal(bias[:, query, key], table[distance])


def test_pixels_that_rolling_brought_together_do_not_see_each_other():
    side, shift, height, width = 4, 2, 7, 12
    mask = shift_mask(height, width, Windows(side, shift))
    assert mask.shape == (2 * 3, side**2, side**2) and set(np.unique(mask)) == {-100.0, 0.0}

    def is_rolled(window: int, pixel: int) -> tuple[bool, bool]:
        row = window // 3 * side + pixel // side
        column = window % 3 * side + pixel % side
        return row >= 8 - shift, column >= 12 - shift

    for window, query, key in np.ndindex(mask.shape):
        is_masked = is_rolled(window, query) != is_rolled(window, key)
        assert mask[window, query, key] == (-100.0 if is_masked else 0.0)


def written_out(qkv: jax.Array, bias: jax.Array, mask: np.ndarray) -> jax.Array:
    batch, windows, pixels, channels = qkv.shape
    heads = len(bias)
    size = channels // 3 // heads
    query, key, value = jnp.moveaxis(qkv.reshape(batch, windows, pixels, 3, heads, size), 3, 0)
    logits = jnp.einsum("bnphc,bnqhc->bnhpq", query, key) / np.float32(size**0.5)
    weights = jax.nn.softmax(logits + bias[None, None] + mask[None, :, None])
    mixed = jnp.einsum("bnhpq,bnqhc->bnphc", weights, value)
    return mixed.reshape(batch, windows, pixels, heads * size)


def test_attention_and_its_gradients_are_those_of_autodiff_of_its_definition():
    mask = shift_mask(4, 6, Windows(3, 1))
    arguments = draw(2, 4, 9, 3 * 8), draw(2, 9, 9)
    along = draw(2, 4, 9, 8)

    @jax.jit
    def both(*arguments):
        results = []
        for attend in (attend_within_windows, written_out):
            out, pullback = jax.vjp(lambda *a, attend=attend: attend(*a, mask), *arguments)
            results.append((out, pullback(along)))
        return results

    ours, expected = both(*arguments)
    for a, b in zip(*map(jax.tree.leaves, (ours, expected)), strict=True):
        # Float32 sums of up to 9 products, and of 8 windows.
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_last_stage_of_the_networks_of_224_never_shifts():
    config = SwinConfig()
    windows = [config.windows_of(stage) for stage in range(4)]
    assert windows == [Windows(7, 3)] * 3 + [Windows(7, 0)]


def test_a_stage_with_maps_below_a_window_has_windows_of_their_size():
    config = SwinConfig(**{**NARROW, "window": 12})
    assert [config.windows_of(stage) for stage in (0, 1)] == [Windows(12, 6), Windows(8, 0)]
    tables = [s for path, s in array_shapes(config).items() if path.endswith("bias_table")]
    assert tables == [(23 * 23, 2), (23 * 23, 2), (15 * 15, 4)]


@pytest.mark.parametrize(
    ("size", "sides"), [((32, 32), (16, 8)), ((2, 2), (1, 1)), ((26, 40), (13, 7))]
)
def test_maps_of_odd_sides_are_padded_before_they_are_merged(size, sides):
    maps = jax.eval_shape(lambda: narrow().features(jnp.zeros((1, *size, 3))))
    assert maps._fields == ("stage1", "stage2")
    assert [m.shape[1] for m in maps] == list(sides)


def test_images_of_a_size_that_patches_do_not_divide_are_refused():
    message = "images must have a height and width that are multiples of 2, got 32 x 33."
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.eval_shape(lambda: narrow()(jnp.zeros((1, 32, 33, 3))))


def test_without_classes_the_model_returns_pooled_features():
    model = narrow(num_classes=0, in_channels=1)
    assert jax.eval_shape(lambda: model(jnp.zeros((2, 32, 32, 1)))).shape == (2, 16)


@pytest.mark.slow
def test_the_gradient_of_the_bias_tables_is_no_bfloat16_sum():
    images = draw(8, 32, 32, 3)
    _, wide = loss_and_gradients(narrow(), images)
    _, narrowed = loss_and_gradients(narrow(dtype="bfloat16"), images)
    path = "stages/0/blocks/1/attention/bias_table"
    error = np.linalg.norm(narrowed[path] - wide[path]) / np.linalg.norm(wide[path])
    # Summands that were rounded to 2**-9 of themselves here and there, not their running sum.
    assert error < 0.05


def test_weight_decay_spares_the_bias_tables():
    shapes = {path: jnp.zeros(shape) for path, shape in array_shapes(SwinConfig(**NARROW)).items()}
    mask = decay_mask(shapes, no_decay=FAMILY.no_decay)
    assert {path.rpartition("/")[2] for path, is_decayed in mask.items() if is_decayed} == {
        "kernel"
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"heads": (3, 4)}, "heads[0]=3 do not divide dims[0]=8; all heads have as many channels."),
        ({"depths": (1,)}, "need one entry for each stage"),
        ({"window": 0}, "window=0 must be at least 1"),
        ({"patch_size": 3}, "image_size=32 must be a multiple of patch_size=3."),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and below 1"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SwinConfig(**{**NARROW, **config})


def test_any_field_of_a_named_model_can_be_replaced():
    config = create_model(TINY, **NARROW).config
    assert config == SwinConfig(**NARROW)
