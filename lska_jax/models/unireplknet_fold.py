"""Merge a UniRepLKNet's branches and fold what is linear beside them, for inference.

With fixed statistics BatchNorm is a x + c for each channel, a = scale / sqrt(var + epsilon) and
c = bias - mean a. In a block (arXiv 2311.15599, section 3.1)

- the branches K_i and their norms are one convolution with kernel sum_i a_i K_i, dilated kernels
  spread over 13 x 13, and bias sum_i c_i; the norm behind the mixer goes into it as well, since
  zero padding comes ahead of both;
- GRN's beta goes through W2 into a bias, which the norm behind W2 and the layer scale gamma join:
  gamma (a W2 (f x + beta) + c) = (gamma a W2) (f x) + gamma (a W2 beta + c).

All of it is exact; it is computed in float64 and rounded once.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.folding import set_layer
from lska_jax.models.unireplknet import (
    FFN_RATIO,
    SqueezeExcitation,
    UniRepLKNet,
    depthwise,
    response,
)
from lska_jax.models.unireplknet_config import (
    BRANCHES,
    LARGE_KERNEL,
    SMALL_KERNEL,
    Branch,
    UniRepLKNetConfig,
)
from lska_jax.nn.dense import Dense
from lska_jax.nn.functional import assign, batch_stats, flat_values, parameters
from lska_jax.nn.initial_values import OneKey
from lska_jax.nn.layers import BATCH_NORM_EPSILON
from lska_jax.ops import gelu
from lska_jax.ops.broadcast import along_channels

# What is read of a block: the array at a path below it, float64.
_Read = Callable[[str], np.ndarray]


class FoldedBlock(nnx.Module):
    """x + W2' ((gamma N + 1) gelu(W1 SE(mixer'(x)))) with biases in mixer', W1 and W2'."""

    def __init__(
        self,
        channels: int,
        config: UniRepLKNetConfig,
        *,
        is_large: bool,
        drop_path_rate: float,
        rngs: nnx.Rngs,
    ):
        del drop_path_rate  # nothing is dropped at inference
        kernel = Branch(LARGE_KERNEL if is_large else SMALL_KERNEL, 1)
        hidden = FFN_RATIO * channels
        self.mixer = depthwise(channels, kernel, config, use_bias=True, rngs=rngs)
        self.gate = SqueezeExcitation(channels, rngs=rngs)
        self.expand = Dense(channels, hidden, dtype=config.dtype, rngs=rngs)
        self.gamma = nnx.Param(jnp.zeros((hidden,), jnp.float32))
        self.project = Dense(hidden, channels, dtype=config.dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape; ``rngs`` is taken for the sake of the interface."""
        hidden = gelu(self.expand(self.gate(self.mixer(x))))
        wide = hidden.astype(jnp.float32)
        factor = along_channels(self.gamma[...], hidden) * response(wide) + 1.0
        return x + self.project((factor * wide).astype(hidden.dtype))


class FoldedUniRepLKNet(UniRepLKNet):
    """A UniRepLKNet for inference, from ``fold``; arguments and methods are the same."""

    block_type = FoldedBlock


def abstract_folded(config: UniRepLKNetConfig) -> FoldedUniRepLKNet:
    """Return a folded network with shapes in place of arrays."""
    return nnx.eval_shape(lambda: FoldedUniRepLKNet(config, rngs=OneKey()))


def fold(model: UniRepLKNet) -> FoldedUniRepLKNet:
    """Return a model for inference; see ``lska_jax.models.fold``."""
    arrays = {**parameters(model), **batch_stats(model)}
    folded = abstract_folded(model.config)
    folded.preprocessing = model.preprocessing
    paths = flat_values(nnx.state(folded, nnx.Param))
    assign(folded, {path: arrays[path] for path in paths if path in arrays})
    for index, stage in enumerate(folded.stages):
        for number, block in enumerate(stage.blocks):
            _fold_block(block, arrays, f"stages/{index}/blocks/{number}/")
    return folded


def _fold_block(block: FoldedBlock, arrays: Mapping[str, Any], place: str) -> None:
    def read(path: str) -> np.ndarray:
        return np.asarray(arrays[place + path], np.float64)

    if place + "mixer/kernel" in arrays:
        kernel, bias = read("mixer/kernel"), np.zeros(())
    else:
        kernel, bias = _merged(read)
    scale, shift = _affine(read, "norm/")
    set_layer(block.mixer, kernel * scale, bias * scale + shift)
    scale, shift = _affine(read, "project_norm/")
    gamma, kernel = read("scale/scale"), read("project/kernel")
    bias = read("response_norm/beta") @ kernel
    set_layer(block.project, kernel * (scale * gamma), (bias * scale + shift) * gamma)
    block.gamma.set_value(jnp.asarray(arrays[place + "response_norm/gamma"]))


def _merged(read: _Read) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of the sum of a mixer's branches, norms included."""
    kernel, bias = np.zeros(()), np.zeros(())
    for number, branch in enumerate(BRANCHES):
        of_branch = read(f"mixer/branches/{number}/conv/kernel")
        scale, shift = _affine(read, f"mixer/branches/{number}/norm/")
        spread = np.zeros((LARGE_KERNEL, LARGE_KERNEL, 1, of_branch.shape[-1]))
        reach = branch.dilation * (branch.kernel_size - 1)
        first = (LARGE_KERNEL - 1 - reach) // 2
        taps = slice(first, first + reach + 1, branch.dilation)
        spread[taps, taps] = of_branch * scale
        kernel, bias = kernel + spread, bias + shift
    return kernel, bias


def _affine(read: _Read, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a and c of a norm's a x + c."""
    scale = read(norm + "scale") / np.sqrt(read(norm + "var") + BATCH_NORM_EPSILON)
    return scale, read(norm + "bias") - read(norm + "mean") * scale
