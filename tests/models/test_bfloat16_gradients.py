"""Gradients in bfloat16 against float32, at real map sizes, for every layer and a small network."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import LKA, LSKA, LKATrivial, LSKATrivial, VANConfig, create_model
from lska_jax.models.van import Block
from lska_jax.nn.dense import Pointwise
from lska_jax.nn.functional import ModelFunctions, batch_stats, flat_arrays, parameters
from lska_jax.nn.layers import (
    BatchNorm,
    ConvFFN,
    DepthwiseConv,
    LayerNorm,
    LayerScale,
    PatchEmbedding,
    StridedConv,
)

# Of the norm of a gradient. Values are rounded to 8 significant bits, 0.2 % each, a few times.
MOST = 0.02
CHANNELS = 4


def block(dtype):
    config = VANConfig(k=7, dtype=dtype)
    return Block(CHANNELS, 2, config, drop_path_rate=0.0, rngs=nnx.Rngs(0))


LAYERS = {
    "Pointwise": lambda dtype: Pointwise(CHANNELS, 6, dtype=dtype, rngs=nnx.Rngs(0)),
    "DepthwiseConv": lambda dtype: DepthwiseConv(CHANNELS, (3, 3), dtype=dtype, rngs=nnx.Rngs(0)),
    "StridedConv": lambda dtype: StridedConv(
        CHANNELS, 6, kernel_size=3, stride=2, dtype=dtype, rngs=nnx.Rngs(0)
    ),
    "PatchEmbedding": lambda dtype: PatchEmbedding(
        CHANNELS, 6, kernel_size=3, stride=2, dtype=dtype, rngs=nnx.Rngs(0)
    ),
    "BatchNorm": lambda dtype: BatchNorm(CHANNELS, dtype=dtype, rngs=nnx.Rngs(0)),
    "LayerNorm": lambda dtype: LayerNorm(CHANNELS, dtype=dtype, rngs=nnx.Rngs(0)),
    "LayerScale": lambda dtype: LayerScale(CHANNELS, dtype=dtype),
    "ConvFFN": lambda dtype: ConvFFN(CHANNELS, 8, dtype=dtype, rngs=nnx.Rngs(0)),
    "LKA": lambda dtype: LKA(CHANNELS, 7, dtype=dtype, rngs=nnx.Rngs(0)),
    "LSKA": lambda dtype: LSKA(CHANNELS, 7, dtype=dtype, rngs=nnx.Rngs(0)),
    "LKATrivial": lambda dtype: LKATrivial(CHANNELS, 3, dtype=dtype, rngs=nnx.Rngs(0)),
    "LSKATrivial": lambda dtype: LSKATrivial(CHANNELS, 3, dtype=dtype, rngs=nnx.Rngs(0)),
    "Block": block,
}


def gradients(build, dtype):
    """Return the gradients of a layer's parameters by path, from inputs that bfloat16 holds."""
    layer = build(dtype)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((8, 112, 112, CHANNELS)), jnp.bfloat16).astype(dtype)
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    drawn = {
        path: jnp.asarray(rng.uniform(0.5, 1.5, a.shape), jnp.bfloat16).astype(jnp.float32)
        for path, a in flat_arrays(params).items()
        if not path.endswith("kernel")
    }

    @jax.jit
    def run(params, x):
        def loss(params):
            module = nnx.merge(graph, params, rest, copy=True)
            out = module(x).astype(jnp.float32)
            # Not the same everywhere, and not zero on average: what is summed is a large number.
            return jnp.vdot(out, 1.0 + 0.5 * jnp.sin(jnp.arange(out.size)).reshape(out.shape))

        return jax.grad(loss)(params)

    flat = [
        (path, variable.replace(drawn.get("/".join(map(str, path)), variable[...])))
        for path, variable in nnx.to_flat_state(params)
    ]
    return flat_arrays(run(nnx.from_flat_state(flat), x))


def relative_errors(found, exact):
    return {
        path: float(np.linalg.norm(found[path] - exact[path]) / np.linalg.norm(exact[path]))
        for path in exact
        # A constant in front of BatchNorm changes nothing: its gradient is rounding noise alone.
        if not path.endswith("projection/bias")
    }


# The gate is one operation, whatever its chain: LSKA's stands for all at every change. A block is
# in the small network, and all its parts are here; a few of them are in others.
_SLOW = ("DepthwiseConv", "StridedConv", "LayerScale", "LKA", "LKATrivial", "LSKATrivial", "Block")


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(build, id=name, marks=pytest.mark.slow if name in _SLOW else ())
        for name, build in LAYERS.items()
    ],
)
def test_every_gradient_of_a_layer_is_that_of_float32(build):
    errors = relative_errors(gradients(build, jnp.bfloat16), gradients(build, jnp.float32))
    assert errors
    assert max(errors.values()) < MOST, sorted(errors.items(), key=lambda item: -item[1])[:5]


def network_gradients(dtype):
    """Return a function to a small network's gradients, its parameters and its images."""
    model = create_model(
        "van_lska_tiny",
        k=7,
        dims=(32,),
        depths=(1,),
        ffn_ratios=(4,),
        num_classes=10,
        dtype=dtype,
        rngs=nnx.Rngs(0),
    )
    functions, stats = ModelFunctions(model), batch_stats(model)

    def run(params, images):
        def loss(params):
            logits, _ = functions.train(params, stats, images, key=jax.random.key(0))
            picked = jax.nn.log_softmax(logits)[:, :5]
            return -jnp.mean(jnp.diagonal(picked))

        return jax.grad(loss)(params)

    images = jnp.asarray(np.random.default_rng(0).standard_normal((8, 128, 128, 3)), jnp.float32)
    return run, parameters(model), images


def test_every_gradient_of_a_small_network_is_that_of_float32():
    found, exact = (
        jax.jit(run)(params, images)
        for run, params, images in map(network_gradients, (jnp.bfloat16, jnp.float32))
    )
    errors = relative_errors(found, exact)
    assert max(errors.values()) < MOST, sorted(errors.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_sums_of_a_train_step_are_float32_where_it_is_lowered_for_others(platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    run, params, images = network_gradients(jnp.bfloat16)
    text = jax.export.export(jax.jit(run), platforms=[platform])(params, images).mlir_module()
    sums = re.findall(r"stablehlo\.reduce\(.*applies stablehlo\.add.*", text)
    assert "bf16" in text and len(sums) > 20
    assert not [line for line in sums if "bf16" in line]
