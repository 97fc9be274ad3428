"""The Pyramid Vision Transformer v2 (arXiv 2106.13797), with both of its attentions.

Reads attention -> block -> stage -> model; the config is in ``pvt_v2_config``. Images and maps are
NHWC, and tokens stay maps until they meet keys and values.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.network import (
    Network,
    drop_path_rates,
    make_classifier,
    make_dropout,
    run_blocks,
    run_stages,
)
from lska_jax.models.pvt_v2_config import (
    LAYER_NORM_EPSILON,
    POOLED_SIDE,
    REDUCTION_NORM_EPSILON,
    PVTv2Config,
)
from lska_jax.nn.dense import KERNEL_STD, Dense
from lska_jax.nn.initial_values import RngsLike, as_rngs, fan_out_normal, normal
from lska_jax.nn.layers import ConvFFN, DropPath, LayerNorm, StridedConv
from lska_jax.nn.patches import Patches
from lska_jax.ops import gelu
from lska_jax.ops.pooling import adaptive_mean


class Reduction(nnx.Module):
    """The map that keys and values are taken from, with fewer pixels than that of the queries.

    LN(conv of patches), or for linear attention GELU(LN(1x1(mean over 7 x 7 windows))).
    """

    def __init__(self, channels: int, side: int, config: PVTv2Config, *, rngs: nnx.Rngs):
        self.projection = Patches(
            channels,
            channels,
            side=side,
            kernel_init=fan_out_normal(side, side, channels),
            dtype=config.dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(
            channels, epsilon=REDUCTION_NORM_EPSILON, dtype=config.dtype, rngs=rngs
        )
        self.is_linear = config.is_linear

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch reduced_height reduced_width channels"]:
        """Return (B, floor(H / side), floor(W / side), C), or (B, 7, 7, C) for linear attention."""
        if self.is_linear:
            return gelu(self.norm(self.projection(adaptive_mean(x, POOLED_SIDE))))
        return self.norm(self.projection(x))


class Attention(nnx.Module):
    """Attention of every pixel to the pixels of a reduced map, and a linear layer behind it."""

    def __init__(
        self, channels: int, heads: int, reduction: int, config: PVTv2Config, *, rngs: nnx.Rngs
    ):
        self.query = Dense(channels, channels, dtype=config.dtype, rngs=rngs)
        # Keys, then values: two matrices in one.
        self.key_value = Dense(channels, 2 * channels, dtype=config.dtype, rngs=rngs)
        is_reduced = config.is_linear or reduction > 1
        reduced = Reduction(channels, reduction, config, rngs=rngs) if is_reduced else None
        self.reduction = nnx.data(reduced)
        self.project = Dense(channels, channels, dtype=config.dtype, rngs=rngs)
        self.heads = heads

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        reduced = x if self.reduction is None else self.reduction(x)
        return self.project(attend(self.query(x), self.key_value(reduced), heads=self.heads))


def attend(
    query: Float[Array, "batch height width channels"],
    key_value: Float[Array, "batch reduced_height reduced_width channels_2"],
    *,
    heads: int,
) -> Float[Array, "batch height width channels"]:
    """Return softmax(q k^T / sqrt(d)) v of every head, side by side.

    Written out rather than ``jax.nn.dot_product_attention``, which copies keys and values each on
    its own and on CPU takes a quarter to a half longer for the same numbers.

    Args:
      query: (B, H, W, C), head after head.
      key_value: (B, h, w, 2 C), keys, then values.
      heads: that C is divided into, d = C / heads channels each.

    Returns:
      (B, H, W, C) in the dtype of ``query``; products are summed, and the softmax is, in float32.
    """
    batch, height, width, channels = query.shape
    pixels = math.prod(key_value.shape[1:3])
    split = key_value.reshape(batch, pixels, 2, heads, channels // heads)
    # To (2, B, heads, pixels, d) in one copy; the batches of both products lie in front.
    key, value = jnp.moveaxis(split, (2, 3), (0, 2))
    scaled = query * jnp.asarray(1 / math.sqrt(channels // heads), query.dtype)
    scaled = jnp.moveaxis(scaled.reshape(batch, height * width, heads, channels // heads), 2, 1)
    weights = jax.nn.softmax(_product(scaled, key, (3, 3)), axis=-1).astype(query.dtype)
    out = _product(weights, value, (3, 2)).astype(query.dtype)
    return jnp.moveaxis(out, 1, 2).reshape(query.shape)


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Return a batched product over one axis of each, float32."""
    return lax.dot_general(
        a,
        b,
        (((axes[0],), (axes[1],)), ((0, 1), (0, 1))),
        preferred_element_type=jnp.float32,
    )


class Block(nnx.Module):
    """x + DropPath(Attention(LN(x))), then x + DropPath(FFN(LN(x)))."""

    def __init__(self, config: PVTv2Config, *, stage: int, drop_path_rate: float, rngs: nnx.Rngs):
        channels = config.dims[stage]
        self.norm_1 = _block_norm(channels, config, rngs)
        self.attention = Attention(
            channels, config.heads[stage], config.reductions[stage], config, rngs=rngs
        )
        self.norm_2 = _block_norm(channels, config, rngs)
        self.ffn = ConvFFN(
            channels,
            channels * config.ffn_ratios[stage],
            drop_rate=config.drop_rate,
            linear_init=normal(KERNEL_STD),
            use_relu=config.is_linear,
            remat=config.remat,
            dtype=config.dtype,
            implementation=config.implementation,
            rngs=rngs,
        )
        self.dropout = make_dropout(config, rngs=rngs)
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        branch = self.attention(self.norm_1(x))
        if self.dropout is not None:
            branch = self.dropout(branch, rngs=rngs)
        x = x + self.drop_path(branch, rngs=rngs)
        return x + self.drop_path(self.ffn(self.norm_2(x), rngs=rngs), rngs=rngs)


class PatchEmbedding(nnx.Module):
    """Overlapping patch embedding: a strided convolution and LayerNorm.

    Like VAN's, but for the norm.
    """

    def __init__(self, config: PVTv2Config, *, stage: int, rngs: nnx.Rngs):
        channels = config.dims[stage]
        self.projection = StridedConv(
            config.dims[stage - 1] if stage else config.in_channels,
            channels,
            kernel_size=3 if stage else 7,
            stride=2 if stage else config.stem_stride,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(
            channels, epsilon=REDUCTION_NORM_EPSILON, dtype=config.dtype, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, ceil(H / stride), ceil(W / stride), C)."""
        return self.norm(self.projection(x))


class Stage(nnx.Module):
    """Patch embedding, blocks, LayerNorm."""

    def __init__(
        self, config: PVTv2Config, *, stage: int, drop_path_rates: Sequence[float], rngs: nnx.Rngs
    ):
        self.patch_embedding = PatchEmbedding(config, stage=stage, rngs=rngs)
        self.blocks = nnx.List(
            Block(config, stage=stage, drop_path_rate=rate, rngs=rngs) for rate in drop_path_rates
        )
        self.norm = _block_norm(config.dims[stage], config, rngs)
        self.remat = config.remat

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return the stage's map, normalised over channels."""
        x = self.patch_embedding(x)
        return self.norm(run_blocks(self.blocks, x, remat=self.remat, rngs=rngs))


class PVTv2(Network):
    """Pyramid Vision Transformer v2.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.
    """

    def __init__(self, config: PVTv2Config, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        self.stages = nnx.List(
            Stage(
                config,
                stage=stage,
                drop_path_rates=rates,
                rngs=rngs,
            )
            for stage, rates in enumerate(drop_path_rates(config.drop_path_rate, config.depths))
        )
        self.classifier = make_classifier(config.dims[-1], config, rngs=rngs)

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        """Return the map of every stage, named stage1 and so on, each behind its LayerNorm.

        Args:
          images: (B, H, W, in_channels), normalised, any height and width that leave every stage
            one key and value: from 29 pixels on at the paper's strides.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank or number of channels, or smaller ones.

        Returns:
          One (B, ceil(H / s), ceil(W / s), dims[i]) a stage in the compute dtype, with
          s = 4, 8, 16, 32 at the paper's stem stride.
        """
        check_images(images, self.config)
        x = jnp.asarray(images, self.config.dtype)
        return run_stages(self.stages, x, rngs=rngs)


def _block_norm(channels: int, config: PVTv2Config, rngs: nnx.Rngs) -> LayerNorm:
    return LayerNorm(channels, epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs)
