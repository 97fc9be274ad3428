"""Which part of a map the kernel holds at once, and whether that fits a TPU core's memory.

The map lies as (H, W, B, C): batch in the sublanes, channels in the lanes, which is how XLA itself
lays out the maps of a network of convolutions on TPU. Rows and columns are then plain addresses:
every shift of the convolution is a slice that costs nothing, and a block holds whole maps of some
images and some channels, so that no block needs its neighbours.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

LANES = 128
SUBLANES = 8
# Of the 128 MiB of a v5e or v6e core; the rest is for what the compiler keeps.
VMEM_BYTES = 100 * 2**20
# Of one kernel. The backward kernel carries a register of sums for every tap; the compiler spills
# them: 9 x 9 compiles for the shapes of the paper, 11 x 11 runs out of memory.
MOST_TAPS = 81
# With 27 rows the backward kernel of 28 x 28 maps spills more than 8 MB, with 25 less than 0.1.
# With 23, those of trivial LSKA at k = 23, whole networks were compiled.
MOST_ROWS = 23
# For what the compiler spills, beside a kernel's own arrays.
SPILL_BYTES = 8 * 2**20
# Orders of axes: (B, H, W, C) to the kernels' (H, W, B, C), and back.
MAPS_FIRST, BATCH_FIRST = (1, 2, 0, 3), (2, 0, 1, 3)
# Registers that one row of a block may take up, of 64.
_ROW_REGISTERS = 64


class Tap(NamedTuple):
    """One tap: its place in the packed taps, and the pixel it reads, seen from the one it makes."""

    place: int
    row: int
    column: int


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of (H, W, batch, channels) and how many cover the array.

    Attributes:
      batch: images in a block: a multiple of 8, or all.
      channels: channels in a block: 128, or all where there are fewer.
      grid: blocks along channels, then along the batch.
      is_ragged: the last block along the batch reaches beyond the array.
    """

    batch: int
    channels: int
    grid: tuple[int, int]
    is_ragged: bool


def choose_block(shape: Sequence[int]) -> Block:
    """Return the block for images of a shape (B, H, W, C).

    One row of a block fills the registers: small maps take many images at once.
    """
    batch, _, width, channels = shape
    rows = SUBLANES * max(1, _ROW_REGISTERS // width)
    block_batch = batch if batch <= rows else rows
    block_channels = min(channels, LANES)
    grid = (-(-channels // block_channels), -(-batch // block_batch))
    return Block(block_batch, block_channels, grid, batch % block_batch != 0)


def lane_blocks(channels: int) -> Iterator[slice]:
    """Return the slices of 128 channels, the last one shorter, that make up all channels."""
    return (slice(c, min(c + LANES, channels)) for c in range(0, channels, LANES))


def live_taps(
    shape: Sequence[int], kernel_sizes: Sequence[tuple[int, int]], dilations: Sequence[int]
) -> tuple[tuple[Tap, ...], ...]:
    """Return the taps of every step that reach into a map of shape (B, H, W, C) at all.

    A kernel larger than the map has taps that only ever meet padding: they are left out.
    """
    _, map_height, map_width, _ = shape
    steps = []
    first = 0
    for (height, width), dilation in zip(kernel_sizes, dilations, strict=True):
        steps.append(
            tuple(
                Tap(first + u * width + v, row, column)
                for u in range(height)
                for v in range(width)
                if abs(row := dilation * (u - height // 2)) < map_height
                and abs(column := dilation * (v - width // 2)) < map_width
            )
        )
        first += height * width
    return tuple(steps)


def vmem_bytes(shape: Sequence[int], dtype: DTypeLike, *, steps: int) -> tuple[int, int]:
    """Return the memory that the forward and the backward kernel take, in bytes.

    Arrays that are read or written a block at a time count twice: the next block is fetched and
    the last one written while one is computed.

    Args:
      shape: of the images, (B, H, W, C).
      dtype: of the images.
      steps: convolutions in the chain.
    """
    block = choose_block(shape)
    # The last two dimensions of a block are padded to whole tiles.
    rows = -(-block.batch // SUBLANES) * SUBLANES
    values = shape[1] * shape[2] * rows * LANES
    array, scratch = values * jnp.dtype(dtype).itemsize, values * 4
    forward = 2 * 2 * array + min(steps - 1, 2) * scratch
    backward = 2 * 3 * array + (steps - 1) * scratch
    return forward, backward


def can_unroll(kernel_size: tuple[int, int]) -> bool:
    """Tell whether a kernel (height, width) has few enough taps and rows to be unrolled."""
    height, width = kernel_size
    return height * width <= MOST_TAPS and height <= MOST_ROWS


def fits(
    shape: Sequence[int],
    dtype: DTypeLike,
    *,
    kernel_sizes: Sequence[tuple[int, int]],
    limit: int = VMEM_BYTES,
) -> bool:
    """Tell whether a chain's forward and backward kernels fit a TPU core's memory.

    Args:
      shape: of the images, (B, H, W, C).
      dtype: of the images.
      kernel_sizes: (height, width) of the chain's kernels.
      limit: bytes of memory to use; the default suits v5e and v6e.
    """
    needed = max(vmem_bytes(shape, dtype, steps=len(kernel_sizes)))
    return all(map(can_unroll, kernel_sizes)) and needed <= limit
