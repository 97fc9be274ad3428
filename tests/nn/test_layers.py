"""The pieces of a VAN block: initialisation, normalisation, GELU, drop path."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.nn.dense import Pointwise
from lska_jax.nn.layers import (
    BatchNorm,
    ConvFFN,
    DepthwiseConv,
    DropPath,
    LayerNorm,
    LayerScale,
    PatchEmbedding,
)
from lska_jax.ops import gelu


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("build", "fan_out"),
    [
        (lambda rngs: Pointwise(64, 128, rngs=rngs).kernel, 128),
        (lambda rngs: DepthwiseConv(512, (1, 11), rngs=rngs).kernel, 11),
        (lambda rngs: DepthwiseConv(256, (5, 5), rngs=rngs).kernel, 25),
        (
            lambda rngs: (
                PatchEmbedding(3, 64, kernel_size=7, stride=4, rngs=rngs).projection.kernel
            ),
            49 * 64,
        ),
    ],
    ids=["pointwise", "depth-wise 1-D", "depth-wise 2-D", "patch embedding"],
)
def test_convolution_kernels_are_normal_with_the_std_of_their_fan_out(build, fan_out):
    kernel = np.asarray(build(nnx.Rngs(0))[...])
    # The standard error of a std over n samples is std / sqrt(2 n); n >= 5632, five of them.
    assert abs(kernel.std() / math.sqrt(2 / fan_out) - 1) < 5 / math.sqrt(2 * kernel.size)
    # Without truncation some of so many samples lie beyond three standard deviations.
    assert np.abs(kernel).max() > 3 * kernel.std()


def test_numbers_of_numpy_become_plain_ones():
    layer = DepthwiseConv(
        np.int64(4), tuple(np.array([3, 5])), dilation=np.int32(2), rngs=nnx.Rngs(0)
    )
    assert layer.kernel.shape == (3, 5, 1, 4)
    assert type(layer.dilation) is int
    assert type(DropPath(np.float32(0.25), rngs=nnx.Rngs(0)).rate) is float
    ffn = ConvFFN(np.int32(4), np.int32(8), drop_rate=np.array(0.5), rngs=nnx.Rngs(0))
    assert type(ffn.dropout.rate) is float
    assert type(ffn.expand.in_features) is type(ffn.expand.out_features) is int
    assert type(LayerNorm(np.uint8(4), epsilon=np.float32(1e-5), rngs=0).epsilon) is float


def test_biases_start_at_zero():
    rngs = nnx.Rngs(0)
    layers = [
        Pointwise(4, 8, rngs=rngs),
        DepthwiseConv(4, (3, 3), rngs=rngs),
        PatchEmbedding(3, 4, kernel_size=3, stride=2, rngs=rngs).projection,
    ]
    assert not any(np.any(layer.bias[...]) for layer in layers)


def test_pointwise_is_a_1x1_convolution():
    layer = Pointwise(3, 5, rngs=nnx.Rngs(0))
    layer.bias.set_value(jnp.asarray(normal(5)))
    x = normal(2, 4, 6, 3)
    expected = np.einsum("bhwi,io->bhwo", x, layer.kernel[...]) + normal(5)
    # Sums of three products in float32.
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-6, atol=1e-6)


def test_depthwise_conv_adds_its_bias_everywhere():
    layer = DepthwiseConv(3, (3, 3), rngs=nnx.Rngs(0))
    layer.bias.set_value(jnp.asarray([1.0, -2.0, 3.0]))
    out = layer(jnp.zeros((1, 4, 5, 3)))
    np.testing.assert_array_equal(out, np.broadcast_to([1.0, -2.0, 3.0], (1, 4, 5, 3)))


@pytest.mark.parametrize(
    ("kernel_size", "stride", "expected"),
    [(7, 4, (9, 17)), (3, 2, (17, 33)), (7, 1, (33, 65)), (7, 2, (17, 33))],
)
def test_patch_embedding_rounds_odd_sizes_up(kernel_size, stride, expected):
    layer = PatchEmbedding(3, 4, kernel_size=kernel_size, stride=stride, rngs=nnx.Rngs(0))
    out = nnx.eval_shape(lambda layer, x: layer(x), layer, jnp.zeros((1, 33, 65, 3)))
    assert out.shape == (1, *expected, 4)


def test_patch_embedding_pads_both_sides_alike_at_stride_2():
    layer = PatchEmbedding(1, 1, kernel_size=3, stride=2, rngs=nnx.Rngs(0))
    layer.projection.kernel.set_value(jnp.ones((3, 3, 1, 1)))
    out = layer.projection(jnp.ones((1, 4, 4, 1)))[0, :, :, 0]
    # The first window starts one pixel before the image; "SAME" would start at its first pixel.
    np.testing.assert_array_equal(out, [[4.0, 6.0], [6.0, 9.0]])


def test_batch_norm_normalises_by_the_batch_in_training():
    x = 3 * normal(4, 3, 5, 2) + 1
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    # Variance as the mean of squares minus the squared mean: float32 roundings of both.
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_moves_its_statistics_by_a_tenth_a_step():
    x = 3 * normal(4, 3, 5, 2) + 1
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    norm(jnp.asarray(x))
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    # The biased variance, as nnx keeps it.
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)


def test_batch_norm_uses_and_keeps_its_statistics_in_evaluation():
    norm = BatchNorm(2, rngs=nnx.Rngs(0))
    norm.mean.set_value(jnp.asarray([1.0, -1.0]))
    norm.var.set_value(jnp.asarray([4.0, 0.0]))
    norm.eval()
    x = normal(4, 3, 5, 2)
    # A variance of zero leaves epsilon alone: it shows as a factor of 316.
    expected = (x - [1.0, -1.0]) / np.sqrt(np.array([4.0, 0.0]) + 1e-5)
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, rtol=1e-6)
    np.testing.assert_array_equal(norm.mean[...], [1.0, -1.0])


def test_bfloat16_batch_norm_keeps_float32_statistics():
    x = jnp.asarray(normal(4, 3, 5, 2) + 1, jnp.bfloat16)
    norm = BatchNorm(2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    out = norm(x)
    exact = np.asarray(x, np.float32)
    assert out.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    # Float32 accuracy; statistics rounded to bfloat16 would be off by up to 4e-3.
    np.testing.assert_allclose(norm.mean[...], 0.1 * exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * exact.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_layer_norm_is_over_channels_in_float32_with_epsilon_1e_6(dtype):
    x = jnp.asarray(1e-3 * normal(2, 3, 3, 8), dtype)
    out = LayerNorm(8, dtype=dtype, rngs=nnx.Rngs(0))(x)
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(
        exact.var(-1, keepdims=True) + 1e-6
    )
    assert out.dtype == dtype
    # One rounding to the output's dtype; an epsilon of 1e-5 would be off by a factor of 2.
    tolerance = 1e-5 if dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, rtol=tolerance, atol=1e-4)


def test_layer_norm_is_exact_where_the_mean_is_large():
    x = (2048 + normal(4, 6, 6, 64)).astype(np.float32)
    out = np.asarray(jax.jit(LayerNorm(64, rngs=nnx.Rngs(0)))(x))
    exact = x.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-6)
    # The mean is rounded to half a unit in the last place of 2048, 1.2e-4.
    np.testing.assert_allclose(out, expected, atol=3e-4)


def test_layer_scale_starts_at_one_hundredth_with_a_strong_float32_dtype():
    scale = LayerScale(3).scale[...]
    np.testing.assert_array_equal(scale, np.full(3, 0.01, np.float32))
    assert scale.dtype == jnp.float32
    assert not scale.weak_type


def test_layer_scale_keeps_the_compute_dtype():
    layer = LayerScale(3, dtype=jnp.bfloat16)
    assert layer(jnp.ones((1, 2, 2, 3), jnp.bfloat16)).dtype == jnp.bfloat16


def test_drop_path_drops_whole_samples_at_its_rate_and_scales_the_rest():
    x = np.abs(normal(4096, 2, 2, 2)) + 1
    ratio = np.asarray(DropPath(0.25, rngs=nnx.Rngs(0))(x)) / x
    kept = ratio[:, 0, 0, 0] > 0
    # 1 / (1 - rate), up to a float32 rounding.
    np.testing.assert_allclose(ratio[kept], 1 / 0.75, rtol=1e-6)
    assert not ratio[~kept].any()
    # Five standard deviations of a mean of 4096 draws.
    assert abs(kept.mean() - 0.75) < 5 * math.sqrt(0.25 * 0.75 / 4096)


def test_drop_path_draws_again_at_each_call():
    drop_path = DropPath(0.5, rngs=nnx.Rngs(0))
    x = jnp.ones((64, 1, 1, 1))
    assert not np.array_equal(drop_path(x), drop_path(x))


def test_drop_path_is_the_identity_in_evaluation():
    drop_path = DropPath(0.5, rngs=nnx.Rngs(0))
    drop_path.eval()
    x = normal(64, 2, 2, 2)
    np.testing.assert_array_equal(drop_path(x), x)


def test_gelu_is_the_exact_one():
    x = np.linspace(-4, 4, 101, dtype=np.float32)
    expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(float)]
    # Float32 erf; the tanh approximation is off by up to 5e-4.
    np.testing.assert_allclose(gelu(jnp.asarray(x)), expected, atol=1e-6)


def test_conv_ffn_expands_mixes_positions_and_projects():
    ffn = ConvFFN(4, 12, implementation="xla", rngs=nnx.Rngs(0))
    x = jnp.asarray(normal(2, 5, 3, 4))

    @nnx.jit
    def run(ffn, x):
        expanded = ffn.expand(x)
        return expanded, ffn(x), ffn.project(gelu(ffn.depthwise(expanded)))

    expanded, out, expected = run(ffn, x)
    assert expanded.shape == (2, 5, 3, 12)
    # The same operations one by one.
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def test_conv_ffn_drops_after_the_gelu_and_after_the_projection():
    ffn = ConvFFN(4, 12, drop_rate=0.5, implementation="xla", rngs=nnx.Rngs(0))
    ffn.project.kernel.set_value(jnp.zeros((12, 4)))
    ffn.project.bias.set_value(jnp.ones(4))
    run = nnx.jit(lambda ffn: ffn(jnp.zeros((8, 5, 5, 4))))
    after_projection = np.asarray(run(ffn))
    assert set(np.unique(after_projection)) == {0.0, 2.0}

    ffn.depthwise.bias.set_value(jnp.full(12, 10.0))
    ffn.project.kernel.set_value(jnp.ones((12, 4)))
    ffn.project.bias.set_value(jnp.zeros(4))
    kept_sums = np.asarray(run(ffn))
    # gelu(10) is 10, doubled by dropout, and doubled again by the second: multiples of 40.
    counts = np.unique(np.round(kept_sums / 40, 4))
    assert np.all(counts == np.round(counts)) and len(counts) > 5


def test_given_rngs_replace_the_dropout_keys_of_the_module():
    ffn = ConvFFN(4, 12, drop_rate=0.5, implementation="xla", rngs=nnx.Rngs(0))
    x = jnp.asarray(normal(2, 5, 3, 4))
    run = nnx.jit(lambda ffn, key: ffn(x, rngs=nnx.Rngs(dropout=key)))
    once, again, other = (run(ffn, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
