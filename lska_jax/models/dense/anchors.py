"""Anchors: boxes of fixed sizes around the cells of a pyramid's maps, which detectors start from.

Order of the anchors of a level: row, column, anchor of the cell; levels one after the other, finest
first. Centres are at whole multiples of the stride, not in the middle of a cell, and nothing is
rounded or cut off, as in mmdetection 2.x.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchors:
    """Anchors of all levels.

    Attributes:
      strides: of the levels, in pixels.
      scales: sides of square anchors, in strides.
      ratios: heights over widths, at the same area.
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_cell(self) -> int:
        """How many anchors a cell has."""
        return len(self.scales) * len(self.ratios)

    def counts(self, sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """Return how many anchors each level has.

        Args:
          sizes: height and width of each map.
        """
        return tuple(height * width * self.per_cell for height, width in sizes)

    def boxes(self, sizes: Sequence[tuple[int, int]]) -> Float32[np.ndarray, "anchors 4"]:
        """Return the anchors of all levels; ratios change slower than scales.

        Args:
          sizes: height and width of each map.
        """
        levels = zip(self.strides, sizes, strict=True)
        return np.concatenate([self._of_level(stride, size) for stride, size in levels])

    def _of_level(self, stride: int, size: tuple[int, int]) -> np.ndarray:
        base = []
        for ratio in self.ratios:
            for scale in self.scales:
                width, height = (stride * scale * math.sqrt(r) for r in (1 / ratio, ratio))
                base.append([-width / 2, -height / 2, width / 2, height / 2])
        rows, columns = (np.arange(length, dtype=np.float32) * stride for length in size)
        x, y = np.meshgrid(columns, rows)
        centres = np.stack([x, y, x, y], -1)[:, :, None]
        return (centres + np.asarray(base, np.float32)).reshape(-1, 4)

    def is_within(
        self, sizes: Sequence[tuple[int, int]], padded_shapes: Int[Array, "batch 2"]
    ) -> Bool[Array, "batch anchors"]:
        """Tell which anchors lie in cells of each image; the others are of the batch's padding.

        Args:
          sizes: height and width of each map.
          padded_shapes: (B, 2) height and width of every image with its own padding, which may be
            less than that of the batch.
        """
        parts = []
        for stride, (height, width) in zip(self.strides, sizes, strict=True):
            limits = -(-padded_shapes // stride)
            rows = jnp.arange(height, dtype=limits.dtype)[None] < limits[:, :1]
            columns = jnp.arange(width, dtype=limits.dtype)[None] < limits[:, 1:]
            cells = rows[:, :, None] & columns[:, None]
            parts.append(jnp.repeat(cells.reshape(cells.shape[0], -1), self.per_cell, axis=1))
        return jnp.concatenate(parts, axis=1)


def join_levels(
    maps: Sequence[Float[Array, "batch _ _ _"]], values: int
) -> Float[Array, "batch anchors values"]:
    """Return what a head says of every anchor, in their order.

    Args:
      maps: (B, H, W, anchors of a cell times values) of each level.
      values: of an anchor.
    """
    flat = [level.reshape(level.shape[0], -1, values) for level in maps]
    return jax.lax.concatenate(flat, 1)
