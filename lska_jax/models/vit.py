"""The Vision Transformer (arXiv 2010.11929), DeiT (2012.12877) and DeiT-III (2204.07118).

Reads block -> model; the config is in ``vit_config``. Images and maps are NHWC, tokens (B, N, C).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.maps import named_maps
from lska_jax.models.network import (
    Network,
    drop_path_rates,
    make_classifier,
    make_dropout,
    run_blocks,
)
from lska_jax.models.vit_config import LAYER_NORM_EPSILON, PREPROCESSINGS, ViTConfig
from lska_jax.nn.dense import KERNEL_STD, MLP
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import DropPath, LayerNorm, LayerScale
from lska_jax.nn.patches import Patches
from lska_jax.nn.token_attention import TokenAttention

# DeiT-III's; its code.
LAYER_SCALE_INIT = 1e-6


class Block(nnx.Module):
    """x + DropPath(scale_1 Attention(LN(x))), then x + DropPath(scale_2 MLP(LN(x)))."""

    def __init__(self, config: ViTConfig, *, drop_path_rate: float, rngs: nnx.Rngs):
        channels, dtype = config.dim, config.dtype
        drop: Any = {"drop_rate": config.drop_rate, "dtype": dtype, "rngs": rngs}
        self.norm_1 = LayerNorm(channels, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs)
        self.attention = TokenAttention(channels, config.heads, **drop)
        self.scale_1 = nnx.data(_layer_scale(config))
        self.norm_2 = LayerNorm(channels, epsilon=LAYER_NORM_EPSILON, dtype=dtype, rngs=rngs)
        self.mlp = MLP(channels, config.mlp_ratio * channels, **drop)
        self.scale_2 = nnx.data(_layer_scale(config))
        self.drop_path = DropPath(drop_path_rate, ndim=3, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch tokens channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch tokens channels"]:
        """Map (B, N, C) to the same shape."""
        branch = self.attention(self.norm_1(x), rngs=rngs)
        x = x + self.drop_path(_scaled(branch, self.scale_1), rngs=rngs)
        branch = self.mlp(self.norm_2(x), rngs=rngs)
        return x + self.drop_path(_scaled(branch, self.scale_2), rngs=rngs)


class ViT(Network):
    """Vision Transformer of any of the kinds.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.
    """

    global_pool = "token"

    def __init__(self, config: ViTConfig, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        self.preprocessing = PREPROCESSINGS[config.kind].for_channels(config.in_channels)
        self.class_token = _parameter(rngs, config.dim)
        self.distillation_token = nnx.data(
            _parameter(rngs, config.dim) if config.is_distilled else None
        )
        placed = config.placed_prefix_tokens + config.position_grid**2
        self.positions = _parameter(rngs, placed, config.dim)
        self.patch_embedding = Patches(
            config.in_channels, config.dim, side=config.patch_size, dtype=config.dtype, rngs=rngs
        )
        self.dropout = make_dropout(config, rngs=rngs)
        (rates,) = drop_path_rates(config.drop_path_rate, (config.depth,))
        self.blocks = nnx.List(Block(config, drop_path_rate=rate, rngs=rngs) for rate in rates)
        self.norm = LayerNorm(config.dim, epsilon=LAYER_NORM_EPSILON, dtype=config.dtype, rngs=rngs)
        self.classifier = make_classifier(config.dim, config, rngs=rngs)
        self.distillation_classifier = (
            make_classifier(config.dim, config, rngs=rngs)
            if config.is_distilled
            else nnx.data(None)
        )

    @property
    def _may_be_unpooled(self) -> bool:
        # Two classifiers take a token each.
        return not self.config.is_distilled

    def tokens(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> list[Float[Array, "batch tokens channels"]]:
        """Return the tokens as embedded and behind each block, before the last norm.

        Args:
          images: (B, H, W, in_channels), normalised, H and W multiples of the patch size.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank or number of channels, or other sides.

        Returns:
          depth + 1 arrays (B, N, C) in the compute dtype: the class token, in distilled networks
          the distillation token, and the patches row by row.
        """
        check_images(images, self.config)
        x = self._embed(jnp.asarray(images, self.config.dtype), rngs)
        found = [x]
        for block in self.blocks:
            x = run_blocks([block], x, remat=self.config.remat, rngs=rngs)
            found.append(x)
        return found

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch ..."], ...]:
        """Return the patches' map behind every block, and last all tokens, normalised.

        Args:
          images: as ``tokens`` takes them.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.

        Raises:
          ValueError: as ``tokens``.

        Returns:
          block1, block2 and so on, each (B, H / patch_size, W / patch_size, C) before the last
          norm, and ``tokens`` (B, N, C) behind it, which ``head`` takes.
        """
        found = self.tokens(images, rngs=rngs)
        size, prefix = self.config.patch_size, self.config.prefix_tokens
        grid = (images.shape[1] // size, images.shape[2] // size)
        maps = {
            f"block{number}": tokens[:, prefix:].reshape(tokens.shape[0], *grid, self.config.dim)
            for number, tokens in enumerate(found[1:], 1)
        }
        return named_maps({**maps, "tokens": self.norm(found[-1])})

    def head(
        self, features: Float[Array, "batch tokens channels"]
    ) -> Float[Array, "batch outputs"]:
        """Return float32 logits (B, num_classes), or the class token if num_classes is 0.

        In distilled networks the mean of the class and the distillation token's (section 5.2 of
        DeiT), in training too, as timm has it; ``logits_of_tokens`` gives both.

        Args:
          features: the last of ``features()``, (B, N, C).
        """
        logits = self.logits_of_tokens(features)
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) * jnp.float32(0.5)

    def logits_of_tokens(
        self, features: Float[Array, "batch tokens channels"]
    ) -> tuple[Float[Array, "batch outputs"], ...]:
        """Return the float32 logits of the class token and, in distilled networks, of the other.

        The distillation token's are what a teacher's labels are compared with.

        Args:
          features: the last of ``features()``, (B, N, C).
        """
        heads = (self.classifier, self.distillation_classifier)[: self.config.prefix_tokens]
        tokens = [features[:, place].astype(jnp.float32) for place in range(len(heads))]
        return tuple(
            token if head is None else head(token)
            for head, token in zip(heads, tokens, strict=True)
        )

    def logits_of_each(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch outputs"], ...]:
        """Return ``logits_of_tokens`` of images, for learning from labels and a teacher at once.

        Args:
          images: as ``tokens`` takes them.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        return self.logits_of_tokens(self.features(images, rngs=rngs)[-1])

    def local_logits(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch rows columns outputs"]:
        """Return what the class token's head makes of each patch; see ``Network``."""
        tokens = self.features(images, rngs=rngs)[-1][:, self.config.prefix_tokens :]
        tokens = tokens.astype(jnp.float32)
        logits = tokens if self.classifier is None else self.classifier(tokens)
        size = self.config.patch_size
        grid = (images.shape[1] // size, images.shape[2] // size)
        return logits.reshape(len(images), *grid, logits.shape[-1])

    def _embed(self, images: Array, rngs: nnx.Rngs | None) -> Array:
        """Return prefix tokens and patches, with their positions added."""
        size = self.config.patch_size
        grid = (images.shape[1] // size, images.shape[2] // size)
        placed = self.config.placed_prefix_tokens
        patches = self.patch_embedding(images)
        patches = patches.reshape(images.shape[0], math.prod(grid), self.config.dim)
        positions = resample_positions(self.positions[...], grid, prefix_tokens=placed)
        x = patches.astype(jnp.float32)
        if not placed:
            x = x + positions[None]
        prefix = [self.class_token[...]]
        if self.distillation_token is not None:
            prefix.append(self.distillation_token[...])
        front = jnp.broadcast_to(jnp.stack(prefix), (x.shape[0], len(prefix), self.config.dim))
        x = jnp.concatenate([front, x], axis=1)
        if placed:
            x = x + positions[None]
        x = x.astype(self.config.dtype)
        return x if self.dropout is None else self.dropout(x, rngs=rngs)


def resample_positions(
    positions: Float[Array, "stored channels"],
    grid: tuple[int, int],
    *,
    prefix_tokens: int,
) -> Float[Array, "placed channels"]:
    """Return the positions of a grid of patches, resampled from those of a square one.

    Bicubic with antialiasing where the grids differ, as timm does it.

    Args:
      positions: (P + S^2, C): of the prefix tokens, then of the S x S patches row by row.
      grid: rows and columns wanted.
      prefix_tokens: P; their positions stay as they are.

    Returns:
      (P + rows columns, C).
    """
    prefix, patches = positions[:prefix_tokens], positions[prefix_tokens:]
    side, channels = round(len(patches) ** 0.5), positions.shape[1]
    if grid == (side, side):
        return positions
    square = patches.reshape(side, side, channels)
    resampled = jax.image.resize(square, (*grid, channels), "cubic", antialias=True)
    return jnp.concatenate([prefix, resampled.reshape(-1, channels)])


def _parameter(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    return nnx.Param(normal(KERNEL_STD)(rngs.params(), shape, jnp.float32))


def _layer_scale(config: ViTConfig) -> LayerScale | None:
    if not config.has_layer_scale:
        return None
    return LayerScale(config.dim, initial=LAYER_SCALE_INIT, dtype=config.dtype)


def _scaled(x: Array, scale: LayerScale | None) -> Array:
    return x if scale is None else scale(x)
