"""What dense networks share: a backbone of any family, its pyramid of maps, blocks of heads."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.models.build import abstract_model, build
from lska_jax.models.heads import backbone_config, head_of
from lska_jax.models.maps import FeatureInfo
from lska_jax.models.network import Network
from lska_jax.models.table import family_of
from lska_jax.nn.dense import Dense
from lska_jax.nn.functional import assign, batch_stats, parameters
from lska_jax.nn.initial_values import RngsLike, as_rngs, fan_out_normal, normal
from lska_jax.nn.layers import BatchNorm, StridedConv

# Of the 1x1 convolution to classes in segmentors.
_CLASSES_STD = 0.01


class DenseNetwork(Network):
    """A backbone and a head; a head's own class adds modules and ``__call__``.

    Args:
      config: a family's with a ``head``.
      rngs: source of the initial parameters and, with dropout or drop path, of their keys.

    Attributes:
      backbone: the family's network, without a classifier.
      pyramid: what its maps are, finest first, each with twice the stride of the one before.
    """

    def __init__(self, config: Any, *, rngs: RngsLike):
        super().__init__(config)
        of_backbone = backbone_config(config)
        self.pyramid = pyramid_of(of_backbone)
        self.backbone = build(of_backbone, rngs=as_rngs(rngs))

    def features(
        self,
        images: Float[Array | np.ndarray, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Array, ...]:
        """Return the backbone's maps by name."""
        return self.backbone.features(images, rngs=rngs)

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, *, rngs: RngsLike = 0
    ) -> None:
        """Put fresh layers for other classes in place of those whose size depends on them.

        Args:
          num_classes: from 1 on.
          global_pool: None; a dense network pools nothing.
          rngs: source of their initial parameters.

        Raises:
          ValueError: a pooling is asked for.
        """
        if global_pool is not None:
            raise ValueError(
                f"global_pool={global_pool!r}: a network with a dense head pools nothing; leave it "
                "out."
            )
        config = dataclasses.replace(self.config, num_classes=num_classes)
        fresh, of_classes = build(config, rngs=as_rngs(rngs)), family_of(config).head
        trained = {**parameters(self), **batch_stats(self)}
        assign(fresh, {path: a for path, a in trained.items() if path not in of_classes})
        nnx.update(self, nnx.state(fresh, nnx.Any(nnx.Param, nnx.BatchStat)))
        self.config = config


@functools.lru_cache(maxsize=16)
def pyramid_of(config: Any) -> tuple[FeatureInfo, ...]:
    """Return what the maps of a backbone are, finest first.

    Args:
      config: of the backbone.

    Raises:
      ValueError: they are no pyramid: not each has twice the stride of the one before.
    """
    maps = tuple(abstract_model(config).feature_info)
    strides = [one.stride for one in maps]
    halves = [fine * 2 for fine in strides[:-1] if fine is not None]
    if len(maps) < 2 or halves != strides[1:]:
        raise ValueError(
            f"A dense head takes two maps or more, each half as large as the one before; those of "
            f"{family_of(config).describe(config)} have the strides "
            f"{', '.join(map(str, strides))}. Choose a model with stages."
        )
    return maps


class ConvBlock(nnx.Module):
    """A convolution without bias that keeps the size, BatchNorm, ReLU.

    Args:
      in_channels: channels of the input.
      channels: channels of the output.
      kernel_size: height and width, odd.
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        initial = fan_out_normal(kernel_size, kernel_size, channels)
        how: dict[str, Any] = {"kernel_init": initial, "dtype": dtype, "rngs": rngs}
        self.conv: Any = (
            Dense(in_channels, channels, use_bias=False, **how)
            if kernel_size == 1
            else StridedConv(
                in_channels, channels, kernel_size=kernel_size, stride=1, use_bias=False, **how
            )
        )
        self.norm = BatchNorm(channels, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, in_channels) to (B, H, W, C)."""
        return jax.nn.relu(self.norm(self.conv(x)))


class PixelClassifier(nnx.Module):
    """Dropout of whole channels, then a 1x1 convolution to the classes, in float32.

    Args:
      in_channels: channels of the input.
      classes: of the output.
      drop_rate: of the dropout.
      rngs: source of the initial parameters and of the dropout's keys.
    """

    def __init__(self, in_channels: int, classes: int, *, drop_rate: float, rngs: nnx.Rngs):
        dropout = nnx.Dropout(drop_rate, broadcast_dims=(1, 2), rngs=rngs) if drop_rate else None
        self.dropout = nnx.data(dropout)
        self.classes = Dense(in_channels, classes, kernel_init=normal(_CLASSES_STD), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch height width in_channels"],
        *,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch height width classes"]:
        """Return the logits of every pixel; ``rngs`` overrides the dropout's own keys."""
        return self.classes(x if self.dropout is None else self.dropout(x, rngs=rngs))


def describe_head(config: Any) -> str:
    """Return the title of a config's head, for messages."""
    head = head_of(config)
    return head.title if head else "a classifier"
