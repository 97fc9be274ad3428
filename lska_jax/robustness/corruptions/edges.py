"""Edges and distances on grey images, as OpenCV computes them: what spatter is drawn with.

Canny's edge detector (IEEE PAMI 8, 1986) with 3 x 3 Sobel gradients and the L1 norm; the chamfer
distance of Borgefors (CVGIP 34, 1986) with a 5 x 5 mask; histogram equalisation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lska_jax.robustness.corruptions.filters import shifted

# tan(22.5 degrees): gradients below it are horizontal, above its inverse vertical.
_TAN_22 = 0.41421356
# OpenCV's lengths of a straight, a diagonal and a knight's move.
_STRAIGHT, _DIAGONAL, _KNIGHT = 1.0, 1.4, 2.1969
_MOVES = (
    (0, 1, _STRAIGHT),
    (1, 0, _STRAIGHT),
    (1, 1, _DIAGONAL),
    (1, -1, _DIAGONAL),
    (1, 2, _KNIGHT),
    (2, 1, _KNIGHT),
    (1, -2, _KNIGHT),
    (2, -1, _KNIGHT),
)
_FAR = 1e6
# Weak edges grow by this many pixels between two looks whether any is left to grow.
_GROWTH_STEPS = 4


def canny_edges(
    levels: Float[Array, "batch height width"], *, low: float, high: float
) -> Bool[Array, "batch height width"]:
    """Return where the edges are.

    A pixel is a candidate if its gradient |dx| + |dy| is above ``low`` and the largest of its two
    neighbours across the edge. Candidates above ``high`` are edges, and so is every candidate that
    touches an edge, with all eight neighbours counted.

    Args:
      levels: (B, H, W) float32, whole numbers.
      low: weak threshold of the gradient.
      high: strong threshold.
    """
    right, down = _sobel(levels)
    strength = jnp.abs(right) + jnp.abs(down)

    def near(rows: int, columns: int) -> Float[Array, "batch height width"]:
        return shifted(strength, -rows, -columns, fill=0.0)

    # One comparison of each pair is strict: of two equal neighbours one remains.
    across_columns = (strength > near(0, -1)) & (strength >= near(0, 1))
    across_rows = (strength > near(-1, 0)) & (strength >= near(1, 0))
    falling = (strength > near(-1, -1)) & (strength > near(1, 1))
    rising = (strength > near(-1, 1)) & (strength > near(1, -1))
    x, y = jnp.abs(right), jnp.abs(down)
    diagonal = jnp.where(right * down < 0, rising, falling)
    steep = y > x * (_TAN_22 + 2.0)
    is_largest = jnp.where(y < x * _TAN_22, across_columns, jnp.where(steep, across_rows, diagonal))
    candidates = is_largest & (strength > low)
    return _grown(candidates & (strength > high), candidates)


def chamfer_distance(
    is_source: Bool[Array, "batch height width"], *, limit: float
) -> Float[Array, "batch height width"]:
    """Return min(distance to the nearest source, limit) over straight, diagonal, knight's moves.

    A shortest path uses each of the eight lines in one direction only and in any order, so the
    distance is taken along one line after another, both ways, with leaps of 1, 2, 4, ... moves.
    """
    distance = jnp.where(is_source, 0.0, _FAR)
    for down, right, length in _MOVES:
        leap = 1
        reached = 0
        while reached * length < limit:
            far_down, far_right, cost = down * leap, right * leap, length * leap
            forward = shifted(distance, far_down, far_right, fill=_FAR) + cost
            backward = shifted(distance, -far_down, -far_right, fill=_FAR) + cost
            # Kept apart for the compiler: fused, every leap would compute all earlier ones again.
            distance = jax.lax.optimization_barrier(
                jnp.minimum(distance, jnp.minimum(forward, backward))
            )
            reached += leap
            leap *= 2
    return jnp.minimum(distance, limit)


def equalised(
    levels: Float[Array, "batch height width"], *, largest: int
) -> Float[Array, "batch height width"]:
    """Spread whole numbers 0..largest over 0..255 by their cumulative histogram.

    With c(v) the count of pixels up to v, and v0 the smallest value that occurs, v becomes
    round(255 (c(v) - c(v0)) / (N - c(v0))); an image of one value stays as it is.
    """
    counts = jnp.stack([jnp.sum(levels <= v, axis=(1, 2)) for v in range(largest + 1)], axis=1)
    first = jnp.min(jnp.where(counts > 0, counts, levels[0].size), axis=1, keepdims=True)
    rest = levels[0].size - first
    table = jnp.round((counts - first) * (255.0 / jnp.maximum(rest, 1)))
    spread = jnp.zeros_like(levels)
    for value in range(largest + 1):
        spread = jnp.where(levels == value, table[:, value, None, None], spread)
    return jnp.where(rest[..., None] > 0, spread, levels)


def _sobel(
    levels: Float[Array, "batch height width"],
) -> tuple[Float[Array, "batch height width"], Float[Array, "batch height width"]]:
    """Return the 3 x 3 Sobel derivatives to the right and downwards, border pixels repeated."""
    padded = jnp.pad(levels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth_rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    smooth_columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    right = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    down = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    return right, down


def _grown(
    seeds: Bool[Array, "batch height width"], within: Bool[Array, "batch height width"]
) -> Bool[Array, "batch height width"]:
    """Grow seeds to all pixels of ``within`` that are connected to them."""

    def dilate(edges: Bool[Array, "batch height width"]) -> Bool[Array, "batch height width"]:
        padded = jnp.pad(edges, ((0, 0), (1, 1), (1, 1)))
        rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
        return (rows[:, :, :-2] | rows[:, :, 1:-1] | rows[:, :, 2:]) & within

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        edges, _ = state
        grown = jax.lax.fori_loop(0, _GROWTH_STEPS, lambda _, e: dilate(e), edges)
        return grown, jnp.any(grown != edges)

    return jax.lax.while_loop(lambda state: state[1], step, (seeds, jnp.asarray(True)))[0]
