"""What the fused attention's kernels take of a TPU core's memory, and what they cost."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from lska_jax.ops.pallas.blocks import LANES, SPILL_BYTES, SUBLANES, VMEM_BYTES, can_unroll
from lska_jax.ops.pallas.kernels import size_in_bytes
from lska_jax.ops.pallas.products import images_of_a_block
from lska_jax.ops.platform import images_of_a_device


def attention_fits(
    shape: tuple[int, ...], dtype: DTypeLike, *, kernel_sizes: Sequence[tuple[int, int]]
) -> bool:
    """Tell whether the fused attention takes images of a shape (B, H, W, C).

    Args:
      shape: of the images, those of all devices of the mesh in context.
      dtype: of the images.
      kernel_sizes: (height, width) of the chain's kernels.
    """
    own = (images_of_a_device(shape[0]), *shape[1:])
    needed = vmem_bytes(own, dtype, len(kernel_sizes))
    return all(map(can_unroll, kernel_sizes)) and needed <= VMEM_BYTES


def block(shape: tuple[int, ...]) -> int:
    """Return how many images a block holds."""
    return images_of_a_block(shape, pixels=256)


def vmem_bytes(shape: tuple[int, ...], dtype: DTypeLike, steps: int) -> int:
    """Return the bytes that the backward kernel, the larger one, takes of a core's memory."""
    batch, height, width, channels = shape
    batch = -(-batch // SUBLANES) * SUBLANES
    padded = -(-channels // LANES) * LANES
    size = jnp.dtype(dtype).itemsize
    values = height * width * block((batch, *shape[1:])) * padded
    parameters = 3 * channels * padded * 2 * (size + 4)
    return values * (7 * size + 4 * max(steps, 2)) + parameters


def compiler_params(images: jax.Array, steps: int) -> pltpu.CompilerParams:
    """Return how the grid runs, and how much memory its kernel is allowed."""
    return pltpu.CompilerParams(
        dimension_semantics=("arbitrary",),
        vmem_limit_bytes=vmem_bytes(images.shape, images.dtype, steps) + SPILL_BYTES,
    )


def cost(
    images: jax.Array, steps: Any, *, maps: int, products: int, once: Sequence[Any]
) -> pl.CostEstimate:
    """Return what a kernel costs.

    Args:
      images: (B, H, W, C).
      steps: live taps of the chain.
      maps: how many maps are read and written.
      products: 1x1 convolutions.
      once: arrays that are read or written once a run.
    """
    channels = images.shape[-1]
    lanes = -(-channels // LANES) * LANES
    pixels = images.size // channels
    taps = sum(len(step) for step in steps) * (1 if maps == 2 else 3)
    return pl.CostEstimate(
        flops=2 * images.size * (products * channels + taps),
        transcendentals=images.size * (maps - 1),
        bytes_accessed=maps * pixels * lanes * images.dtype.itemsize + size_in_bytes(*once),
    )
