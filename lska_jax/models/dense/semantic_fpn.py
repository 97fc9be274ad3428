"""Semantic FPN (arXiv 1901.02446, section 3.2): a pyramid's maps, brought to one size and summed.

The head is that of mmsegmentation 0.x: every map goes through convolutions and bilinear doublings
until it is as large as the finest, the branches are summed, and a 1x1 convolution classifies.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.dense.fpn import FPN
from lska_jax.models.dense.network import ConvBlock, DenseNetwork, PixelClassifier
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.ops.resize import resize_bilinear


class Branch(nnx.Module):
    """Convolutions of one map, each followed by a doubling where the map is to grow.

    Args:
      in_channels: channels of the input.
      channels: channels of the output.
      doublings: how often the map is doubled; none leaves one convolution.
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    def __init__(
        self, in_channels: int, channels: int, *, doublings: int, dtype: Any, rngs: nnx.Rngs
    ):
        self.blocks = nnx.List(
            ConvBlock(
                channels if i else in_channels, channels, kernel_size=3, dtype=dtype, rngs=rngs
            )
            for i in range(max(doublings, 1))
        )
        self.doublings = doublings

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Map (B, H, W, in_channels) to (B, H 2^doublings, W 2^doublings, channels)."""
        for block in self.blocks:
            x = block(x)
            if self.doublings:
                x = resize_bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))
        return x


class SemanticFPN(DenseNetwork):
    """A segmentor.

    Args:
      config: a family's with a ``SemanticFPNConfig``.
      rngs: source of the initial parameters and of the keys of dropout and drop path.
    """

    def __init__(self, config: Any, *, rngs: RngsLike):
        rngs = as_rngs(rngs)
        super().__init__(config, rngs=rngs)
        head, dtype = config.head, jnp.dtype(config.dtype)
        channels = [one.channels for one in self.pyramid]
        self.neck = FPN(channels, head.pyramid_channels, dtype=dtype, rngs=rngs)
        self.branches = nnx.List(
            Branch(head.pyramid_channels, head.channels, doublings=level, dtype=dtype, rngs=rngs)
            for level in range(len(channels))
        )
        self.classifier = PixelClassifier(
            head.channels, config.num_classes, drop_rate=head.dropout_rate, rngs=rngs
        )

    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch map_height map_width classes"]:
        """Return the logits of every pixel of the finest map, a quarter of the image, in float32.

        Args:
          images: (B, H, W, in_channels), normalised, of sizes that ``features`` takes.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        maps = self.neck(self.features(images, rngs=rngs))
        first, *others = (branch(x) for branch, x in zip(self.branches, maps, strict=True))
        for one in others:
            first = first + resize_bilinear(one, (first.shape[1], first.shape[2]))
        return self.classifier(first, rngs=rngs)

    def all_logits(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch map_height map_width classes"]]:
        """Return the logits of all heads, of which there is one."""
        return (self(images, rngs=rngs),)
