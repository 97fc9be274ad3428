"""The Visual Attention Network (arXiv 2202.09741) with any of the four attentions.

Reads block -> stage -> model; the config is in ``van_config``. Images and maps are NHWC.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.network import (
    Network,
    drop_path_rates,
    make_classifier,
    run_blocks,
    run_stages,
)
from lska_jax.models.van_config import VANConfig, gates_of
from lska_jax.nn.attention import LKA, LSKA, LKATrivial, LSKATrivial
from lska_jax.nn.dense import Pointwise
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.nn.layers import (
    BatchNorm,
    ConvFFN,
    DropPath,
    LayerNorm,
    LayerScale,
    PatchEmbedding,
)
from lska_jax.ops import gelu
from lska_jax.ops.broadcast import along_channels
from lska_jax.ops.pallas import attention_fits, fused_attention
from lska_jax.ops.platform import takes_pallas

ATTENTIONS = {"lka": LKA, "lska": LSKA, "lka_trivial": LKATrivial, "lska_trivial": LSKATrivial}


def abstract_attention(attention: str, channels: int, *, k: int) -> nnx.Module:
    """Return a gate with shapes in place of arrays, its convolutions as they are defined.

    Args:
      attention: key of ``ATTENTIONS``.
      channels: of the map.
      k: extent of the large kernel.

    Raises:
      ValueError: no kernel of the attention has this extent.
    """
    gate = ATTENTIONS[attention]
    return nnx.eval_shape(lambda: gate(channels, k, implementation="xla", rngs=nnx.Rngs(0)))


class Attention(nnx.Module):
    """1x1, GELU, large-kernel gate, 1x1, and a shortcut around all of it."""

    def __init__(self, channels: int, config: VANConfig, *, rngs: nnx.Rngs):
        gate = gates_of(vars(config))[0]
        dilation = {} if config.is_trivial else {"dilation": gate.dilation}
        self.proj_in = Pointwise(channels, channels, dtype=config.dtype, rngs=rngs)
        self.gate = ATTENTIONS[gate.attention](
            channels,
            gate.k,
            dtype=config.dtype,
            implementation=config.implementation,
            rngs=rngs,
            **dilation,
        )
        self.proj_out = Pointwise(channels, channels, dtype=config.dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        scale: LayerScale | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Map the normalised (B, H, W, C) to the same shape, times the layer scale if there is one.

        The shortcut is of the normalised.
        """
        return attend(x, self.proj_in, self.gate, self.proj_out, scale=scale)


def attend(
    x: Float[Array, "batch height width channels"],
    proj_in: Pointwise,
    gate: Any,
    proj_out: Pointwise,
    *,
    scale: LayerScale | None = None,
    shortcut: Float[Array, " channels"] | None = None,
) -> Float[Array, "batch height width channels"]:
    """Return scale (shortcut x + proj_out(gate(gelu(proj_in(x))))), as one TPU kernel if it fits.

    Args:
      x: (B, H, W, C).
      proj_in: the first 1x1.
      gate: one of ``ATTENTIONS``.
      proj_out: the last 1x1.
      scale: layer scale; None is none.
      shortcut: factor (C,) float32 of x, as a folded BatchNorm leaves it; None is one.

    Returns:
      (B, H, W, C) in the compute dtype.
    """
    steps, dtype = list(gate.depthwise), proj_in.dtype
    is_fused = takes_pallas(gate.implementation, batch=x.shape[0], dtype=dtype)
    sizes = [(step.kernel.shape[0], step.kernel.shape[1]) for step in steps]
    if is_fused and attention_fits(x.shape, dtype, kernel_sizes=sizes):
        return fused_attention(
            x.astype(dtype),
            (proj_in.kernel[...], proj_in.bias[...]),
            [step.kernel[...] for step in steps],
            [step.bias[...] for step in steps],
            (gate.pointwise.kernel[...], gate.pointwise.bias[...]),
            (proj_out.kernel[...], proj_out.bias[...]),
            dilations=[step.dilation for step in steps],
            scale=None if scale is None else scale.scale[...],
            shortcut=shortcut,
        )
    branch = proj_out(gate(gelu(proj_in(x))))
    if shortcut is None:
        out = x + branch
    else:
        # The sum is float32: in bfloat16 the factor would lose the part that differs from 1.
        wide = x.astype(jnp.float32) * along_channels(shortcut, x)
        out = (wide + branch.astype(jnp.float32)).astype(dtype)
    return out if scale is None else scale(out)


class Block(nnx.Module):
    """x + DropPath(scale_1 Attention(BN(x))), then x + DropPath(scale_2 FFN(BN(x)))."""

    def __init__(
        self,
        channels: int,
        ffn_ratio: int,
        config: VANConfig,
        *,
        drop_path_rate: float,
        rngs: nnx.Rngs,
    ):
        self.norm_1 = BatchNorm(channels, dtype=config.dtype, rngs=rngs)
        self.attention = Attention(channels, config, rngs=rngs)
        self.scale_1 = LayerScale(channels, dtype=config.dtype)
        self.norm_2 = BatchNorm(channels, dtype=config.dtype, rngs=rngs)
        self.ffn = ConvFFN(
            channels,
            channels * ffn_ratio,
            drop_rate=config.drop_rate,
            remat=config.remat,
            dtype=config.dtype,
            implementation=config.implementation,
            rngs=rngs,
        )
        self.scale_2 = LayerScale(channels, dtype=config.dtype)
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        branch = self.attention(self.norm_1(x), scale=self.scale_1)
        x = x + self.drop_path(branch, rngs=rngs)
        branch = self.ffn(self.norm_2(x), scale=self.scale_2, rngs=rngs)
        return x + self.drop_path(branch, rngs=rngs)


class Stage(nnx.Module):
    """Patch embedding, blocks, LayerNorm."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        ffn_ratio: int,
        config: VANConfig,
        *,
        is_first: bool,
        drop_path_rates: Sequence[float],
        rngs: nnx.Rngs,
    ):
        self.patch_embedding = PatchEmbedding(
            in_channels,
            channels,
            kernel_size=7 if is_first else 3,
            stride=config.stem_stride if is_first else 2,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.blocks = nnx.List(
            Block(channels, ffn_ratio, config, drop_path_rate=rate, rngs=rngs)
            for rate in drop_path_rates
        )
        self.norm = LayerNorm(
            channels, epsilon=config.layer_norm_epsilon, dtype=config.dtype, rngs=rngs
        )
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


class VAN(Network):
    """Visual Attention Network.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.
    """

    def __init__(self, config: VANConfig, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        in_channels = (config.in_channels, *config.dims[:-1])
        self.stages = nnx.List(
            Stage(
                in_channels[i],
                config.dims[i],
                config.ffn_ratios[i],
                config.of_stage(i),
                is_first=i == 0,
                drop_path_rates=rates,
                rngs=rngs,
            )
            for i, rates in enumerate(drop_path_rates(config.drop_path_rate, config.depths))
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
          images: (B, H, W, in_channels), normalised, any height and width.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank or number of channels.

        Returns:
          One (B, ceil(H / s), ceil(W / s), dims[i]) a stage in the compute dtype, with
          s = 4, 8, 16, 32 at the paper's stem stride.
        """
        check_images(images, self.config)
        x = jnp.asarray(images, self.config.dtype)
        return run_stages(self.stages, x, rngs=rngs)
