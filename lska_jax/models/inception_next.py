"""InceptionNeXt (arXiv 2303.16900): ConvNeXt's block with its large kernel cut into bands.

Reads mixer -> block -> stage -> model; the config is in ``inception_next_config``. Images and maps
are NHWC.
"""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.checks import check_images
from lska_jax.models.convnext import Stem, Transition
from lska_jax.models.inception_next_config import InceptionNeXtConfig
from lska_jax.models.network import (
    Network,
    Stage,
    drop_path_rates,
    make_classifier,
    make_dropout,
    run_stages,
)
from lska_jax.nn.dense import KERNEL_STD, MLP, Dense
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.nn.layers import (
    BatchNorm,
    DepthwiseConv,
    DropPath,
    LayerNorm,
    LayerScale,
)
from lska_jax.ops import gelu

LAYER_SCALE_INIT = 1e-6
# Hidden over input channels of the head's MLP.
HEAD_RATIO = 3


class Mixer(nnx.Module):
    """Inception's depth-wise convolution (section 3.2): each branch has channels of its own.

    The last 3 C / divisor channels pass through 3x3, 1xk and kx1, a third each; the first stay.
    """

    def __init__(self, channels: int, config: InceptionNeXtConfig, *, rngs: nnx.Rngs):
        def branch(height: int, width: int) -> DepthwiseConv:
            return DepthwiseConv(
                channels // config.branch_divisor,
                (height, width),
                kernel_init=normal(KERNEL_STD),
                dtype=config.dtype,
                implementation=config.implementation,
                rngs=rngs,
            )

        self.square = branch(3, 3)
        self.horizontal = branch(1, config.band_size)
        self.vertical = branch(config.band_size, 1)
        width = channels // config.branch_divisor
        # Where the channels are cut.
        self.cuts = (channels - 3 * width, channels - 2 * width, channels - width)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        same, square, horizontal, vertical = jnp.split(x, self.cuts, axis=-1)
        mixed = (self.square(square), self.horizontal(horizontal), self.vertical(vertical))
        return jnp.concatenate((same, *mixed), axis=-1)


class Block(nnx.Module):
    """x + DropPath(scale MLP(BN(mixer(x))))."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        config: InceptionNeXtConfig,
        *,
        drop_path_rate: float,
        rngs: nnx.Rngs,
    ):
        self.mixer = Mixer(channels, config, rngs=rngs)
        self.norm = BatchNorm(channels, dtype=config.dtype, rngs=rngs)
        self.mlp = MLP(channels, mlp_ratio * channels, dtype=config.dtype, rngs=rngs)
        self.scale = LayerScale(channels, initial=LAYER_SCALE_INIT, dtype=config.dtype)
        self.drop_path = DropPath(drop_path_rate, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width channels"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape."""
        branch = self.scale(self.mlp(self.norm(self.mixer(x))))
        return x + self.drop_path(branch, rngs=rngs)


class InceptionNeXt(Network):
    """InceptionNeXt.

    Args:
      config: architecture and computation.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.
    """

    def __init__(self, config: InceptionNeXtConfig, *, rngs: RngsLike):
        super().__init__(config)
        rngs = as_rngs(rngs)
        dims, dtype = config.dims, config.dtype
        self.stem = Stem(config, norm=BatchNorm, rngs=rngs)
        self.stages = nnx.List(
            Stage(
                [
                    Block(dims[i], config.mlp_ratios[i], config, drop_path_rate=rate, rngs=rngs)
                    for rate in rates
                ],
                remat=config.remat,
            )
            for i, rates in enumerate(drop_path_rates(config.drop_path_rate, config.depths))
        )
        self.transitions = nnx.List(
            Transition(dims[i], dims[i + 1], dtype=dtype, norm=BatchNorm, rngs=rngs)
            for i in range(len(dims) - 1)
        )
        # The head is float32.
        hidden = HEAD_RATIO * dims[-1]
        self.hidden = Dense(dims[-1], hidden, rngs=rngs)
        self.norm = LayerNorm(hidden, rngs=rngs)
        self.dropout = make_dropout(config, rngs=rngs)
        self.classifier = make_classifier(hidden, config, rngs=rngs)

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

    @property
    def _may_be_unpooled(self) -> bool:
        # The hidden layer takes pooled features.
        return False

    def head(
        self,
        features: Float[Array, "batch height width channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Return logits (B, num_classes), in float32, or (B, 3 C) of the head's hidden layer.

        The norm of the hidden layer stands behind its GELU.

        Args:
          features: the last of ``features()``.
          rngs: keys for dropout in training mode; None takes the model's own.
        """
        hidden = self.norm(gelu(self.hidden(self.pool(features))))
        if self.dropout is not None:
            hidden = self.dropout(hidden, rngs=rngs)
        return hidden if self.classifier is None else self.classifier(hidden)

    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Return float32 logits (B, num_classes), or the head's hidden layer without classes.

        Args:
          images: (B, H, W, in_channels), normalised, H and W from ``config.least_side`` on.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        return self.head(self.features(images, rngs=rngs)[-1], rngs=rngs)
