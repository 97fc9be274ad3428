"""Patches that do not overlap are a convolution whose stride is its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from lska_jax.nn import patches
from lska_jax.nn.functional import parameters
from lska_jax.nn.patches import Patches


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def convolved(x: jax.Array, layer: Patches) -> jax.Array:
    side = layer.kernel.shape[0]
    out = lax.conv_general_dilated(
        x, layer.kernel[...], (side, side), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out + layer.bias[...][None, None, None]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(
    ("side", "shape"),
    [
        (4, (2, 9, 15, 3)),
        pytest.param(2, (1, 4, 6, 5), marks=pytest.mark.slow),
        pytest.param(1, (1, 3, 2, 4), marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients_are_those_of_the_convolution(side, shape, platform, monkeypatch):
    monkeypatch.setattr(patches, "target_platform", lambda: platform)
    layer, x = Patches(shape[-1], 6, side=side, rngs=nnx.Rngs(0)), draw(*shape)
    layer.bias.set_value(draw(6))

    def loss(layer, x, run):
        return jnp.sum(jnp.sin(run(x, layer)))

    ours = jax.value_and_grad(loss, argnums=(0, 1))(layer, x, lambda x, layer: layer(x))
    expected = jax.value_and_grad(loss, argnums=(0, 1))(layer, x, convolved)
    for found, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        # Float32 sums of up to 48 products in another order.
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_kernels_start_normal_with_std_0_02_and_biases_zero():
    layer = Patches(3, 96, side=4, rngs=nnx.Rngs(0))
    assert {path: array.shape for path, array in parameters(layer).items()} == {
        "bias": (96,),
        "kernel": (4, 4, 3, 96),
    }
    # Five standard errors of a std over 4,608 samples.
    assert abs(np.std(layer.kernel[...]) / 0.02 - 1) < 5 / np.sqrt(2 * 4608)
    assert not np.any(layer.bias[...])


def test_bfloat16_sums_the_gradient_of_the_bias_in_float32():
    layer = Patches(1, 2, side=2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    maps = jnp.zeros((4, 128, 128, 1), jnp.bfloat16)
    gradient = jax.grad(lambda layer: jnp.sum(layer(maps).astype(jnp.float32)))(layer)
    np.testing.assert_array_equal(gradient.bias[...], np.full(2, 4 * 64 * 64, np.float32))
