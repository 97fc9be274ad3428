"""Sums over all pixels of a batch, several in one pass over the maps."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.platform import target_platform

# Rows that are summed before the rest. XLA's CPU backend vectorises the loop over channels only
# where the loop inside it, over these rows, is short enough to be unrolled.
ROWS_A_SUM = (8, 7)


def sum_over_pixels(
    maps: Sequence[Float[Array, "batch height width channels"]],
) -> list[Float[Array, " channels"]]:
    """Sum maps of one shape over batch, height and width, in float32.

    On CPU all sums are one variadic reduction: a reduction for each makes XLA read again what the
    maps are computed from. Other backends merge them by themselves.

    Args:
      maps: each (B, H, W, C). The height is best a multiple of 7 or 8; others are padded.
    """
    maps = [m.astype(jnp.float32) for m in maps]
    if target_platform() == "cpu":
        maps = _sum_blocks_of_rows(maps)
    return [jnp.sum(m, axis=tuple(range(m.ndim - 1))) for m in maps]


def rows_a_sum(height: int) -> int:
    """Return how many rows are summed at once, so that the least padding is needed."""
    return min(ROWS_A_SUM, key=lambda rows: -height % rows) if height >= 7 else height


def _sum_blocks_of_rows(maps: list[Array]) -> list[Array]:
    batch, height, width, channels = maps[0].shape
    rows = rows_a_sum(height)
    if height % rows:
        maps = [jnp.pad(m, ((0, 0), (0, -height % rows), (0, 0), (0, 0))) for m in maps]
    blocks = [m.reshape(batch, m.shape[1] // rows, rows, width, channels) for m in maps]
    return lax.reduce(
        blocks,
        [jnp.zeros((), jnp.float32)] * len(blocks),
        lambda left, right: [a + b for a, b in zip(left, right, strict=True)],
        (2,),
    )
