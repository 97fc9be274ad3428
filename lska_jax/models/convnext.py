"""ConvNeXt, a ConvNet for the 2020s (arXiv 2201.03545).

Reads block -> transition -> model; the config is in ``convnext_config``. Images and maps are NHWC.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.convnext_config import ConvNeXtConfig
from lska_jax.models.network import Network, Stage, drop_path_rates, make_classifier, run_stages
from lska_jax.nn.dense import KERNEL_STD, MLP
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import DepthwiseConv, DropPath, LayerNorm, LayerScale
from lska_jax.nn.patches import Patches
from lska_jax.ops.fusion import written_out

KERNEL_SIZE = 7
MLP_RATIO = 4
LAYER_SCALE_INIT = 1e-6


class Block(nnx.Module):
    """x + DropPath(scale MLP(LN(depthwise(x)))), 7 x 7."""

    def __init__(
        self, channels: int, config: ConvNeXtConfig, *, drop_path_rate: float, rngs: nnx.Rngs
    ):
        self.depthwise = DepthwiseConv(
            channels,
            (KERNEL_SIZE, KERNEL_SIZE),
            kernel_init=normal(KERNEL_STD),
            dtype=config.dtype,
            implementation=config.implementation,
            rngs=rngs,
        )
        self.norm = LayerNorm(channels, dtype=config.dtype, rngs=rngs)
        self.mlp = MLP(channels, MLP_RATIO * channels, dtype=config.dtype, rngs=rngs)
        self.scale = LayerScale(channels, initial=LAYER_SCALE_INIT, dtype=config.dtype)
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        mixed = written_out(self.depthwise(x))
        branch = self.scale(self.mlp(self.norm(mixed)))
        return x + self.drop_path(branch, rngs=rngs)


class Stem(nnx.Module):
    """Patches that do not overlap as one linear map each, and a norm."""

    def __init__(self, config: Any, *, norm: Any = LayerNorm, rngs: nnx.Rngs):
        channels = config.dims[0]
        self.projection = Patches(
            config.in_channels, channels, side=config.patch_size, dtype=config.dtype, rngs=rngs
        )
        self.norm = norm(channels, dtype=config.dtype, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Map (B, H, W, in_channels) to (B, H // patch_size, W // patch_size, C)."""
        return self.norm(self.projection(images))


class Transition(nnx.Module):
    """A norm, then 2 x 2 patches: half the height and width of the map."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        dtype: Any,
        norm: Any = LayerNorm,
        rngs: nnx.Rngs,
    ):
        self.norm = norm(in_channels, dtype=dtype, rngs=rngs)
        self.projection = Patches(in_channels, channels, side=2, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Map (B, H, W, in_channels) to (B, H // 2, W // 2, C)."""
        return self.projection(self.norm(x))


class ConvNeXt(Network):
    """ConvNeXt.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with drop path, of its keys.
    """

    def __init__(self, config: ConvNeXtConfig, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        dims, dtype = config.dims, config.dtype
        self.stem = Stem(config, rngs=rngs)
        self.stages = nnx.List(
            Stage(
                [Block(channels, config, drop_path_rate=rate, rngs=rngs) for rate in rates],
                remat=config.remat,
            )
            for channels, rates in zip(
                dims, drop_path_rates(config.drop_path_rate, config.depths), strict=True
            )
        )
        self.transitions = nnx.List(
            Transition(dims[i], dims[i + 1], dtype=dtype, rngs=rngs) for i in range(len(dims) - 1)
        )
        # The head is float32.
        self.norm = LayerNorm(dims[-1], rngs=rngs)
        self.classifier = make_classifier(dims[-1], config, rngs=rngs)

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch _ _ _"], ...]:
        """Return the map of every stage, named stage1 and so on, without a norm behind it.

        Args:
          images: (B, H, W, in_channels), normalised, H and W from ``config.least_side`` on.
          rngs: keys for drop path in training mode; None takes the model's own.

        Raises:
          ValueError: images of another rank or number of channels, or too small.

        Returns:
          One (B, H // s, W // s, dims[i]) a stage in the compute dtype, with s = 4, 8, 16, 32 at
          the paper's patch size. What is left over at the bottom and right is not seen.
        """
        check_images(images, self.config)
        x = self.stem(jnp.asarray(images, self.config.dtype))
        return run_stages(self.stages, x, transitions=self.transitions, rngs=rngs)

    def unpooled(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return the map with the head's norm at each pixel, in float32; see ``Network``."""
        return self.norm(super().unpooled(features))

    def pool(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch channels"]:
        """Return the mean over pixels, normalised behind it, in float32."""
        return self.norm(super().pool(features))
