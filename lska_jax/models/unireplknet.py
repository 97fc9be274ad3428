"""UniRepLKNet (arXiv 2311.15599): 13 x 13 depth-wise kernels, trained as sums of dilated ones.

Reads mixer -> block -> model; the config is in ``unireplknet_config``. Images and maps are NHWC.
A block is

    x + gamma BN(W2 GRN(gelu(W1 SE(BN(mixer(x)))))),

with the mixer one 3 x 3 or the sum of ``BRANCHES``, each behind a BatchNorm of its own. SE gates
the channels by their means (arXiv 1709.01507), GRN by their norms (arXiv 2301.00808).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.network import Network, Stage, drop_path_rates, make_classifier, run_stages
from lska_jax.models.unireplknet_config import (
    BRANCHES,
    LARGE_KERNEL,
    SMALL_KERNEL,
    Branch,
    UniRepLKNetConfig,
)
from lska_jax.nn.dense import KERNEL_STD, Dense
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import (
    BatchNorm,
    DepthwiseConv,
    DropPath,
    LayerNorm,
    LayerScale,
    StridedConv,
)
from lska_jax.ops import depthwise_conv, gelu
from lska_jax.ops.broadcast import add_bias, along_channels
from lska_jax.ops.recompute import recompute

FFN_RATIO = 4
SE_RATIO = 4
GRN_EPSILON = 1e-6
LAYER_SCALE_INIT = 1e-6

_Map = Float[Array, "batch height width channels"]


class NormedConv(nnx.Module):
    """One branch of a large kernel: a depth-wise convolution without bias, and BatchNorm."""

    def __init__(self, channels: int, branch: Branch, config: UniRepLKNetConfig, *, rngs: nnx.Rngs):
        self.conv = depthwise(channels, branch, config, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(channels, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: _Map) -> _Map:
        """Map (B, H, W, C) to the same shape."""
        return self.norm(self.conv(x))

    def merged(
        self,
    ) -> tuple[Float[Array, "height width 1 channels"], Float[Array, " channels"]]:
        """Return kernel and bias, float32, of the 13 x 13 convolution that evaluation amounts to.

        The gaps that dilation leaves and the margin are zeros.
        """
        factor = self.norm.scale[...] * lax.rsqrt(self.norm.var[...] + self.norm.epsilon)
        kernel = self.conv.kernel[...] * along_channels(factor, self.conv.kernel[...])
        dilation = self.conv.dilation
        margin = (LARGE_KERNEL - 1 - dilation * (kernel.shape[0] - 1)) // 2
        spread = (margin, margin, dilation - 1)
        zero = jnp.zeros((), jnp.float32)
        kernel = lax.pad(kernel, zero, (spread, spread, (0, 0, 0), (0, 0, 0)))
        return kernel, self.norm.bias[...] - self.norm.mean[...] * factor


class LargeKernel(nnx.Module):
    """The sum of all ``BRANCHES``; in evaluation, where all of it is linear, one convolution."""

    def __init__(self, channels: int, config: UniRepLKNetConfig, *, rngs: nnx.Rngs):
        self.branches = nnx.List(NormedConv(channels, b, config, rngs=rngs) for b in BRANCHES)

    def __call__(self, x: _Map) -> _Map:
        """Map (B, H, W, C) to the same shape."""
        first, *others = self.branches
        if not first.norm.use_running_average:
            # One rounding of the sum at the end, whatever the dtype of the maps.
            wide = sum((b(x).astype(jnp.float32) for b in others), first(x).astype(jnp.float32))
            return wide.astype(first.conv.dtype)
        kernel, bias = first.merged()
        for branch in others:
            more, shift = branch.merged()
            kernel, bias = kernel + more, bias + shift
        implementation = first.conv.implementation
        maps = x.astype(first.conv.dtype)
        return add_bias(depthwise_conv(maps, kernel, implementation=implementation), bias)


class SqueezeExcitation(nnx.Module):
    """Gate the channels: x sigmoid(up(relu(down(mean over pixels of x)))), in float32."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.down = Dense(channels, channels // SE_RATIO, rngs=rngs)
        self.up = Dense(channels // SE_RATIO, channels, rngs=rngs)

    def __call__(self, x: _Map) -> _Map:
        """Map (B, H, W, C) to the same shape and dtype."""
        wide = x.astype(jnp.float32)
        gate = jax.nn.sigmoid(self.up(jax.nn.relu(self.down(jnp.mean(wide, axis=(1, 2))))))
        return (wide * gate[:, None, None, :]).astype(x.dtype)


def response(x: _Map) -> Float[Array, "batch 1 1 channels"]:
    """Return every channel's norm over the pixels, over the mean of all channels' norms.

    Args:
      x: (B, H, W, C) float32.
    """
    energy = jnp.sum(jnp.square(x), axis=(1, 2), keepdims=True)
    # The norm has no slope at zero, where its gradient counts as zero.
    is_zero = energy == 0.0
    norm = jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, energy)))
    return norm / (jnp.mean(norm, axis=-1, keepdims=True) + GRN_EPSILON)


class GlobalResponseNorm(nnx.Module):
    """(gamma N + 1) x + beta with the channels' ``response`` N, in float32."""

    def __init__(self, channels: int):
        self.gamma = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.beta = nnx.Param(jnp.zeros((channels,), jnp.float32))

    def __call__(self, x: _Map) -> _Map:
        """Map (B, H, W, C) to the same shape and dtype."""
        wide = x.astype(jnp.float32)
        factor = along_channels(self.gamma[...], x) * response(wide) + 1.0
        return (factor * wide + along_channels(self.beta[...], x)).astype(x.dtype)


class Block(nnx.Module):
    """x + DropPath(gamma BN(W2 GRN(gelu(W1 SE(BN(mixer(x)))))))."""

    def __init__(
        self,
        channels: int,
        config: UniRepLKNetConfig,
        *,
        is_large: bool,
        drop_path_rate: float,
        rngs: nnx.Rngs,
    ):
        hidden, dtype = FFN_RATIO * channels, config.dtype
        if is_large:
            self.mixer: Any = LargeKernel(channels, config, rngs=rngs)
        else:
            small = Branch(SMALL_KERNEL, 1)
            self.mixer = depthwise(channels, small, config, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.gate = SqueezeExcitation(channels, rngs=rngs)
        self.expand = Dense(channels, hidden, dtype=dtype, rngs=rngs)
        self.response_norm = GlobalResponseNorm(hidden)
        self.project = Dense(hidden, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.project_norm = BatchNorm(channels, dtype=dtype, rngs=rngs)
        self.scale = LayerScale(channels, initial=LAYER_SCALE_INIT, dtype=dtype)
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)

    def __call__(self, x: _Map, rngs: nnx.Rngs | None = None) -> _Map:
        """Map (B, H, W, C) to the same shape."""
        mixed = self.gate(self.norm(self.mixer(x)))
        branch = recompute(_back, self.expand(mixed), (self.response_norm, self.project))
        branch = self.scale(self.project_norm(branch))
        return x + self.drop_path(branch, rngs=rngs)


def _back(hidden: Array, layers: tuple[GlobalResponseNorm, Dense]) -> Array:
    response_norm, project = layers
    return project(response_norm(gelu(hidden)))


class Stem(nnx.Module):
    """3x3 of stride 2 to half the channels, LayerNorm, GELU, 3x3 of stride 2, LayerNorm."""

    def __init__(self, config: UniRepLKNetConfig, *, rngs: nnx.Rngs):
        channels = config.dims[0]
        self.projection_1 = _halving(config.in_channels, channels // 2, config, rngs=rngs)
        self.norm_1 = LayerNorm(channels // 2, dtype=config.dtype, rngs=rngs)
        self.projection_2 = _halving(channels // 2, channels, config, rngs=rngs)
        self.norm_2 = LayerNorm(channels, dtype=config.dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, ceil(H / 4), ceil(W / 4), C)."""
        return self.norm_2(self.projection_2(gelu(self.norm_1(self.projection_1(x)))))


class Transition(nnx.Module):
    """From stage to stage: 3x3 of stride 2, LayerNorm."""

    def __init__(
        self, in_channels: int, channels: int, config: UniRepLKNetConfig, *, rngs: nnx.Rngs
    ):
        self.projection = _halving(in_channels, channels, config, rngs=rngs)
        self.norm = LayerNorm(channels, dtype=config.dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, ceil(H / 2), ceil(W / 2), C)."""
        return self.norm(self.projection(x))


class UniRepLKNet(Network):
    """UniRepLKNet in the form that is trained and published, its branches side by side.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with drop path, of its keys.
    """

    block_type: Any = Block

    def __init__(self, config: UniRepLKNetConfig, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        dims = config.dims
        self.stem = Stem(config, rngs=rngs)
        self.transitions = nnx.List(
            Transition(before, channels, config, rngs=rngs)
            for before, channels in zip(dims[:-1], dims[1:], strict=True)
        )
        stages: list[Any] = [
            Stage(
                [
                    self.block_type(
                        dims[index],
                        config,
                        is_large=config.is_large(index, number),
                        drop_path_rate=rate,
                        rngs=rngs,
                    )
                    for number, rate in enumerate(rates)
                ],
                remat=config.remat,
            )
            for index, rates in enumerate(drop_path_rates(config.drop_path_rate, config.depths))
        ]
        self.stages = nnx.List(stages)
        self.norm = LayerNorm(dims[-1], rngs=rngs)
        self.classifier = make_classifier(dims[-1], config, rngs=rngs)

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        """Return the map of every stage, named stage1 and so on, as its last block leaves it.

        Args:
          images: (B, H, W, in_channels), normalised, any height and width.
          rngs: keys for drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank or number of channels.

        Returns:
          One (B, ceil(H / s), ceil(W / s), dims[i]) a stage in the compute dtype, with
          s = 4, 8, 16, 32.
        """
        check_images(images, self.config)
        x = self.stem(jnp.asarray(images, self.config.dtype))
        return run_stages(self.stages, x, transitions=self.transitions, rngs=rngs)

    def unpooled(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return the map with the head's norm at each pixel, in float32; see ``Network``."""
        return self.norm(super().unpooled(features))

    def pool(self, features: _Map) -> Float[Array, "batch channels"]:
        """Return the mean over pixels, normalised behind it, in float32."""
        return self.norm(super().pool(features))


def depthwise(
    channels: int, branch: Branch, config: UniRepLKNetConfig, *, use_bias: bool, rngs: nnx.Rngs
) -> DepthwiseConv:
    """Return a depth-wise convolution as the family begins with."""
    return DepthwiseConv(
        channels,
        (branch.kernel_size, branch.kernel_size),
        dilation=branch.dilation,
        use_bias=use_bias,
        kernel_init=normal(KERNEL_STD),
        dtype=config.dtype,
        implementation=config.implementation,
        rngs=rngs,
    )


def _halving(
    in_channels: int, channels: int, config: UniRepLKNetConfig, *, rngs: nnx.Rngs
) -> StridedConv:
    return StridedConv(
        in_channels,
        channels,
        kernel_size=3,
        stride=2,
        kernel_init=normal(KERNEL_STD),
        dtype=config.dtype,
        rngs=rngs,
    )
