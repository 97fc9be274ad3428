"""UPerNet (arXiv 1807.10221): pooled context, a pyramid, and all maps joined at the finest size.

The head is that of mmsegmentation 0.x, with the auxiliary head on the last map but one that its
recipes train beside it.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.dense.network import ConvBlock, DenseNetwork, PixelClassifier
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.ops.pooling import adaptive_mean
from lska_jax.ops.resize import resize_bilinear


class UPerNet(DenseNetwork):
    """A segmentor.

    In training mode the map that is pooled to one pixel needs two images or more: BatchNorm has
    no variance of one value.

    Args:
      config: a family's with a ``UPerNetConfig``.
      rngs: source of the initial parameters and of the keys of dropout and drop path.
    """

    def __init__(self, config: Any, *, rngs: RngsLike):
        rngs = as_rngs(rngs)
        super().__init__(config, rngs=rngs)
        head, channels = config.head, config.head.channels
        *finer, last = (one.channels for one in self.pyramid)
        how: dict[str, Any] = {"dtype": jnp.dtype(config.dtype), "rngs": rngs}
        self.pool_sides = head.pool_sides
        self.pools = nnx.List(
            ConvBlock(last, channels, kernel_size=1, **how) for _ in head.pool_sides
        )
        pooled = last + channels * len(head.pool_sides)
        self.bottleneck = ConvBlock(pooled, channels, kernel_size=3, **how)
        self.laterals = nnx.List(
            ConvBlock(given, channels, kernel_size=1, **how) for given in finer
        )
        self.outputs = nnx.List(ConvBlock(channels, channels, kernel_size=3, **how) for _ in finer)
        joined = channels * len(self.pyramid)
        self.fusion = ConvBlock(joined, channels, kernel_size=3, **how)
        classes: dict[str, Any] = {"drop_rate": head.dropout_rate, "rngs": rngs}
        self.classifier = PixelClassifier(channels, config.num_classes, **classes)
        self.auxiliary = ConvBlock(finer[-1], head.auxiliary_channels, kernel_size=3, **how)
        self.auxiliary_classifier = PixelClassifier(
            head.auxiliary_channels, config.num_classes, **classes
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
        return self._decode(self.features(images, rngs=rngs), rngs)

    def all_logits(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "batch _ _ classes"], Float[Array, "batch _ _ classes"]]:
        """Return the logits, and those of the auxiliary head at a quarter of their size."""
        maps = self.features(images, rngs=rngs)
        auxiliary = self.auxiliary_classifier(self.auxiliary(maps[-2]), rngs=rngs)
        return self._decode(maps, rngs), auxiliary

    def _decode(self, maps: tuple[Array, ...], rngs: nnx.Rngs | None) -> Array:
        summed = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=False)]
        summed.append(self._with_context(maps[-1]))
        for level in range(len(summed) - 1, 0, -1):
            summed[level - 1] = summed[level - 1] + _resized_as(summed[level], summed[level - 1])
        outputs = [output(x) for output, x in zip(self.outputs, summed, strict=False)]
        outputs.append(summed[-1])
        joined = jnp.concatenate([_resized_as(x, outputs[0]) for x in outputs], axis=-1)
        return self.classifier(self.fusion(joined), rngs=rngs)

    def _with_context(self, x: Array) -> Array:
        pooled = [
            _resized_as(block(adaptive_mean(x, side)), x)
            for side, block in zip(self.pool_sides, self.pools, strict=True)
        ]
        return self.bottleneck(jnp.concatenate([x, *pooled], axis=-1))


def _resized_as(maps: Array, wanted: Array) -> Array:
    return resize_bilinear(maps, (wanted.shape[1], wanted.shape[2]))
