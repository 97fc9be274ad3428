"""What the networks of all families share: from maps to logits, blocks, rates of drop path."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.models.config import NetworkConfig
from lska_jax.models.table import family_of
from lska_jax.nn.dense import Dense


class Network(nnx.Module):
    """A network of some family, whose own class adds ``features`` and the modules.

    Args:
      config: architecture and computation.

    Attributes:
      config: the same.
      preprocessing: how images have to be prepared: the family's, or that of the weights.
      classifier: the last layer; None if there are no classes.
    """

    classifier: Any

    def __init__(self, config: NetworkConfig):
        self.config: Any = config
        self.preprocessing = family_of(config).preprocessing.for_channels(config.in_channels)

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, ...]:
        """Return the maps by name, see ``maps``; the last is what ``head`` takes."""
        raise NotImplementedError

    def head(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch outputs"]:
        """Return logits (B, num_classes), or pooled features if num_classes is 0, in float32.

        Args:
          features: the last of ``features()``.
        """
        pooled = self.pool(features)
        return pooled if self.classifier is None else self.classifier(pooled)

    def pool(
        self, features: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch channels"]:
        """Return the mean over pixels in float32."""
        return jnp.mean(features, axis=(1, 2), dtype=jnp.float32)

    def __call__(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Return float32 logits (B, num_classes), or what the head makes of no classes.

        Args:
          images: (B, H, W, in_channels), normalised, of sizes that ``features`` takes.
          rngs: keys for dropout and drop path in training mode; None takes the model's own.
        """
        return self.head(self.features(images, rngs=rngs)[-1])


def make_classifier(channels: int, config: NetworkConfig, *, rngs: nnx.Rngs) -> Any:
    """Return the float32 layer from pooled features to logits, or None if there are no classes."""
    classes = config.num_classes
    return nnx.data(Dense(channels, classes, rngs=rngs) if classes else None)


def make_dropout(config: Any, *, rngs: nnx.Rngs) -> Any:
    """Return a dropout of the config's ``drop_rate``, or None for a rate of 0."""
    return nnx.data(nnx.Dropout(config.drop_rate, rngs=rngs) if config.drop_rate else None)


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the rate of every block by stage, linear from 0 over all blocks.

    Args:
      last: of the last block.
      depths: blocks of each stage.
    """
    step = last / max(sum(depths) - 1, 1)
    blocks = itertools.count()
    return [[step * next(blocks) for _ in range(depth)] for depth in depths]


def run_blocks(
    blocks: Iterable[nnx.Module], x: Array, *, remat: bool, rngs: nnx.Rngs | None
) -> Array:
    """Return what blocks make of x, one after the other.

    Args:
      blocks: called as ``block(x, rngs)``.
      x: maps or tokens.
      remat: recompute each in the backward pass instead of keeping its activations.
      rngs: keys for dropout and drop path.
    """
    for block in blocks:
        call: Any = type(block).__call__
        x = (nnx.remat(call) if remat else call)(block, x, rngs)
    return x
