"""Feature pyramid network (arXiv 1612.03144): maps of all strides with the channels of one.

Lateral 1x1 convolutions, sums from the coarsest map down, 3x3 convolutions; with biases, without
norms and activations. Two variants add coarser maps for detection.
"""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.dense import Pointwise
from lska_jax.nn.initial_values import RngsLike, as_rngs, xavier_uniform
from lska_jax.nn.layers import StridedConv
from lska_jax.ops.resize import repeat_nearest

Extra = Literal["none", "pool", "conv"]


class FPN(nnx.Module):
    """From maps that each halve the one before to as many or more of one width.

    Args:
      in_channels: of each map, finest first.
      channels: of every output.
      extra: further outputs. "pool": one, every second pixel of the last (Mask R-CNN). "conv": two,
        3x3 convolutions at stride 2 of the last map given, then of the first of them (RetinaNet).
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        extra: Extra = "none",
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        rngs = as_rngs(rngs)
        self.laterals = nnx.List(
            Pointwise(given, channels, kernel_init=xavier_uniform(1, 1), dtype=dtype, rngs=rngs)
            for given in in_channels
        )
        # One list, as checkpoints number them: an output a map, then the further ones.
        inputs = [(channels, 1)] * len(in_channels)
        if extra == "conv":
            inputs += [(in_channels[-1], 2), (channels, 2)]
        self.outputs = nnx.List(
            StridedConv(
                given,
                channels,
                kernel_size=3,
                stride=stride,
                kernel_init=xavier_uniform(3, 3),
                dtype=dtype,
                rngs=rngs,
            )
            for given, stride in inputs
        )
        self.extra = extra

    def __call__(
        self, maps: Sequence[Float[Array, "batch _ _ _"]]
    ) -> list[Float[Array, "batch _ _ channels"]]:
        """Return the outputs, finest first.

        Args:
          maps: (B, H, W, in_channels[i]) each, H and W half of those before.

        Raises:
          ValueError: another number of maps, or sizes that are no halves.
        """
        if len(maps) != len(self.laterals):
            raise ValueError(f"The pyramid takes {len(self.laterals)} maps, got {len(maps)}.")
        summed = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for level in range(len(summed) - 1, 0, -1):
            finer = summed[level - 1]
            size = (finer.shape[1], finer.shape[2])
            summed[level - 1] = finer + repeat_nearest(summed[level], size)
        levels = len(summed)
        outputs = [self.outputs[level](x) for level, x in enumerate(summed)]
        if self.extra == "pool":
            outputs.append(outputs[-1][:, ::2, ::2])
        elif self.extra == "conv":
            outputs.append(self.outputs[levels](maps[-1]))
            outputs.append(self.outputs[levels + 1](outputs[-1]))
        return outputs
