"""The Swin Transformer (arXiv 2103.14030): attention within windows that move from block to block.

Reads attention -> block -> stage -> model; the config is in ``swin_config``, what a window is in
``swin_windows``. Images and maps are NHWC. At any image size it computes what timm's
``dynamic_img_size`` network does; other codes differ from that at sizes other than the config's.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
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
from lska_jax.models.swin_config import SwinConfig, Windows
from lska_jax.models.swin_windows import (
    attend_within_windows,
    join_windows,
    relative_bias,
    shift_mask,
    split_into_windows,
)
from lska_jax.nn.dense import KERNEL_STD, MLP, Dense
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import DropPath, LayerNorm
from lska_jax.nn.patches import Patches

LAYER_NORM_EPSILON = 1e-5
MLP_RATIO = 4


class WindowAttention(nnx.Module):
    """Attention of several heads within windows, with a learned bias of each distance."""

    def __init__(
        self, channels: int, heads: int, windows: Windows, config: SwinConfig, *, rngs: nnx.Rngs
    ):
        self.qkv = Dense(channels, 3 * channels, dtype=config.dtype, rngs=rngs)
        self.bias_table = nnx.Param(
            normal(KERNEL_STD)(rngs.params(), ((2 * windows.side - 1) ** 2, heads), jnp.float32)
        )
        self.project = Dense(channels, channels, dtype=config.dtype, rngs=rngs)
        self.side = windows.side

    def __call__(
        self,
        x: Float[Array, "batch windows pixels channels"],
        *,
        mask: Float[np.ndarray, "windows pixels pixels"] | None = None,
    ) -> Float[Array, "batch windows pixels channels"]:
        """Map windows (B, N, P, C) to the same shape; the mask (N, P, P) is added to the logits."""
        bias = relative_bias(self.bias_table[...], self.side)
        return self.project(attend_within_windows(self.qkv(x), bias, mask))


class Block(nnx.Module):
    """x + DropPath(Attention(LN(x))), then x + DropPath(MLP(LN(x)))."""

    def __init__(
        self,
        channels: int,
        heads: int,
        windows: Windows,
        config: SwinConfig,
        *,
        drop_path_rate: float,
        rngs: nnx.Rngs,
    ):
        def norm() -> LayerNorm:
            return LayerNorm(channels, epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs)

        self.norm_1 = norm()
        self.attention = WindowAttention(channels, heads, windows, config, rngs=rngs)
        self.norm_2 = norm()
        self.mlp = MLP(
            channels,
            channels * MLP_RATIO,
            drop_rate=config.drop_rate,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.dropout = make_dropout(config, rngs=rngs)
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)
        self.windows = windows

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        branch = self._attend(self.norm_1(x))
        if self.dropout is not None:
            branch = self.dropout(branch, rngs=rngs)
        x = x + self.drop_path(branch, rngs=rngs)
        return x + self.drop_path(self.mlp(self.norm_2(x), rngs=rngs), rngs=rngs)

    def _attend(self, x: Array) -> Array:
        _, height, width, _ = x.shape
        side, shift = self.windows
        mask = None
        if shift:
            x = jnp.roll(x, (-shift, -shift), (1, 2))
            mask = shift_mask(height, width, self.windows)
        out = self.attention(split_into_windows(x, side), mask=mask)
        out = join_windows(out, side, height, width)
        return jnp.roll(out, (shift, shift), (1, 2)) if shift else out


class PatchMerging(nnx.Module):
    """Four pixels in one: LN of their channels, and a linear layer without bias."""

    def __init__(self, in_channels: int, channels: int, config: SwinConfig, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(
            4 * in_channels, epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs
        )
        self.reduction = Dense(
            4 * in_channels, channels, use_bias=False, dtype=config.dtype, rngs=rngs
        )

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Map (B, H, W, in_channels) to (B, ceil(H / 2), ceil(W / 2), C)."""
        batch, height, width, channels = x.shape
        rows, columns = -(-height // 2), -(-width // 2)
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, rows, 2, columns, 2, channels)
        # The order of the four (row, column): (0, 0), (1, 0), (0, 1), (1, 1).
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, rows, columns, 4 * channels)
        return self.reduction(self.norm(x))


class PatchEmbedding(nnx.Module):
    """A convolution of disjoint patches, and LN."""

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        patch = config.patch_size
        # A spread of 1 / sqrt(3 fan_in), that of PyTorch's default, which the authors keep here.
        initial = normal((3 * config.in_channels * patch**2) ** -0.5)
        self.projection = Patches(
            config.in_channels,
            config.dims[0],
            side=patch,
            kernel_init=initial,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.norm = LayerNorm(
            config.dims[0], epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs
        )
        self.dropout = make_dropout(config, rngs=rngs)

    def __call__(
        self,
        images: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, H / patch_size, W / patch_size, C)."""
        x = self.norm(self.projection(images))
        return x if self.dropout is None else self.dropout(x, rngs=rngs)


class Stage(nnx.Module):
    """Patch merging, except in the first; blocks, of which every second one shifts its windows."""

    def __init__(
        self,
        stage: int,
        config: SwinConfig,
        *,
        drop_path_rates: Sequence[float],
        rngs: nnx.Rngs,
    ):
        channels, windows = config.dims[stage], config.windows_of(stage)
        merging = None
        if stage:
            merging = PatchMerging(config.dims[stage - 1], channels, config, rngs=rngs)
        self.merging = nnx.data(merging)
        self.blocks = nnx.List(
            Block(
                channels,
                config.heads[stage],
                windows if number % 2 else windows._replace(shift=0),
                config,
                drop_path_rate=rate,
                rngs=rngs,
            )
            for number, rate in enumerate(drop_path_rates)
        )
        self.remat = config.remat

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return the stage's map."""
        if self.merging is not None:
            x = self.merging(x)
        return run_blocks(self.blocks, x, remat=self.remat, rngs=rngs)


class Swin(Network):
    """Swin Transformer.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.
    """

    def __init__(self, config: SwinConfig, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        self.patch_embedding = PatchEmbedding(config, rngs=rngs)
        self.stages = nnx.List(
            Stage(stage, config, drop_path_rates=rates, rngs=rngs)
            for stage, rates in enumerate(drop_path_rates(config.drop_path_rate, config.depths))
        )
        self.norm = LayerNorm(
            config.dims[-1], epsilon=LAYER_NORM_EPSILON, dtype=jnp.float32, rngs=rngs
        )
        self.classifier = make_classifier(config.dims[-1], config, rngs=rngs)

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        """Return the map of every stage, named stage1 and so on, as its last block leaves it.

        Args:
          images: (B, H, W, in_channels), normalised; height and width are multiples of the config's
            ``patch_size``.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank, number of channels, or size.

        Returns:
          One (B, ceil(H / s), ceil(W / s), dims[i]) a stage in the compute dtype, with
          s = 4, 8, 16, 32 at the paper's patch size.
        """
        check_images(images, self.config)
        x = self.patch_embedding(jnp.asarray(images, self.config.dtype), rngs=rngs)
        return run_stages(self.stages, x, rngs=rngs)

    def forward_features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch _ _ channels"]:
        """Return the last map, normalised, as timm's is; see ``Network``."""
        return self.norm(super().forward_features(images, rngs=rngs))

    def forward_head(
        self, features: Float[Array, "batch height width channels"], *, pre_logits: bool = False
    ) -> Float[Array, "batch ..."]:
        """Return logits or pooled features of the normalised last map; see ``Network``."""
        if not self.global_pool:
            return self.unpooled(features)
        pooled = super().pool(features)
        return pooled if pre_logits or self.classifier is None else self.classifier(pooled)

    def pool(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch channels"]:
        """Return the mean over pixels, each normalised, in float32."""
        return super().pool(self.norm(features))
