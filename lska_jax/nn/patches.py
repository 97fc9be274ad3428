"""Patches that do not overlap, each mapped by one matrix: stems, transitions, reductions.

    y[b, i, j] = vec(x[b, i p : (i + 1) p, j p : (j + 1) p]) W + b

A convolution whose stride is its size. On CPU it is written as the matrix product that it is: for
the weight gradient of such a convolution XLA takes several times as long.
"""

from typing import SupportsIndex

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.dense import KERNEL_STD
from lska_jax.nn.initial_values import RngsLike, as_rngs, normal
from lska_jax.ops import pointwise_conv
from lska_jax.ops.broadcast import add_bias
from lska_jax.ops.plain_numbers import plain_int
from lska_jax.ops.platform import target_platform


class Patches(nnx.Module):
    """One linear map of every patch of p x p pixels, without padding.

    Args:
      in_channels: channels of the input.
      channels: C, channels of the output.
      side: p; 1 is a 1x1 convolution.
      kernel_init: of W; None is normal with std 0.02.
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        in_channels: SupportsIndex,
        channels: SupportsIndex,
        *,
        side: SupportsIndex,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        in_channels, channels = (
            plain_int("in_channels", in_channels),
            plain_int("channels", channels),
        )
        side = plain_int("side", side)
        draw = kernel_init or normal(KERNEL_STD)
        shape = (side, side, in_channels, channels)
        self.kernel = nnx.Param(draw(as_rngs(rngs).params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.dtype = dtype

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch rows columns channels"]:
        """Map (B, H, W, in_channels) to (B, H // p, W // p, C); what is left over is not seen."""
        x, kernel = x.astype(self.dtype), self.kernel[...]
        out = _as_product(x, kernel) if target_platform() == "cpu" else _as_convolution(x, kernel)
        return add_bias(out, self.bias[...])


def _as_product(x: Array, kernel: Array) -> Array:
    side, _, in_channels, channels = kernel.shape
    batch, rows, columns = x.shape[0], x.shape[1] // side, x.shape[2] // side
    cut = x[:, : rows * side, : columns * side]
    cut = jnp.swapaxes(cut.reshape(batch, rows, side, columns, side, in_channels), 2, 3)
    patches = cut.reshape(batch, rows, columns, side**2 * in_channels)
    return pointwise_conv(patches, kernel.reshape(-1, channels))


def _as_convolution(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        kernel.shape[:2],
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
