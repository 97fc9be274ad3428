"""Edges and distances on grey images, as OpenCV computes them: what spatter is drawn with.

Canny's edge detector (IEEE PAMI 8, 1986) with 3 x 3 Sobel gradients and the L1 norm; the chamfer
distance of Borgefors (CVGIP 34, 1986) with a 5 x 5 mask; histogram equalisation.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from lska_jax.robustness.corruptions.filters import shifted

# tan(22.5 degrees): gradients below it are horizontal, above its inverse vertical.
_TAN_22 = 0.41421356
# OpenCV's lengths of a straight, a diagonal and a knight's move.
_STRAIGHT, _DIAGONAL, _KNIGHT = 1.0, 1.4, 2.1969
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

    Nothing is in the way, so the shortest path between two pixels has a length in closed form, and
    it grows with the distance along the row: of every row near a pixel the nearest source counts
    alone. These are found first, then the shortest of the paths to each row.
    """
    reach = math.ceil(limit)
    sides = jnp.pad(is_source, ((0, 0), (0, 0), (reach, reach)))

    def look_along(step: Array, across: Float[Array, "..."]) -> Float[Array, "..."]:
        # From far to near: the nearest is written last.
        away = reach - 1 - step
        is_there = _window(sides, is_source.shape, (0, reach - away)) | _window(
            sides, is_source.shape, (0, reach + away)
        )
        return jnp.where(is_there, away.astype(jnp.float32), across)

    farthest = jnp.full(is_source.shape, reach, jnp.float32)
    across = jax.lax.fori_loop(0, reach, look_along, farthest)
    ends = jnp.pad(across, ((0, 0), (reach, reach), (0, 0)), constant_values=reach)

    def look_down(away: Array, distance: Float[Array, "..."]) -> Float[Array, "..."]:
        above = _window(ends, is_source.shape, (reach - away, 0))
        below = _window(ends, is_source.shape, (reach + away, 0))
        nearer = jnp.minimum(above, below)
        return jnp.minimum(distance, _path_length(nearer, away.astype(jnp.float32)))

    nowhere = jnp.full(is_source.shape, limit, jnp.float32)
    return jax.lax.fori_loop(0, reach, look_down, nowhere)


def _window(
    padded: Shaped[Array, "batch rows columns"],
    shape: tuple[int, ...],
    corner: tuple[int | Array, int | Array],
) -> Shaped[Array, "batch height width"]:
    return jax.lax.dynamic_slice(padded, (0, *corner), shape)


def _path_length(
    across: Float[Array, "batch height width"], down: Float[Array, ""]
) -> Float[Array, "batch height width"]:
    """Return the length of the shortest path over so many columns and rows.

    It takes knight's moves and either straight or diagonal ones. The length is a norm, whose unit
    ball has a face for each of these pairs: it is the largest of the four linear functions.
    """
    knight_less = _KNIGHT - 2 * _STRAIGHT
    long, short = _KNIGHT - _DIAGONAL, 2 * _DIAGONAL - _KNIGHT
    with_straight = jnp.maximum(across + knight_less * down, knight_less * across + down)
    with_diagonal = jnp.maximum(long * across + short * down, short * across + long * down)
    return jnp.maximum(with_straight, with_diagonal)


def equalised(
    levels: Float[Array, "batch height width"], *, largest: int
) -> Float[Array, "batch height width"]:
    """Spread whole numbers 0..largest over 0..255 by their cumulative histogram.

    With c(v) the count of pixels up to v, and v0 the smallest value that occurs, v becomes
    round(255 (c(v) - c(v0)) / (N - c(v0))); an image of one value stays as it is.
    """

    def up_to(value: Float[Array, ""]) -> Float[Array, "batch width"]:
        # Down the columns, one value after another: over the last axis sums take one number at a
        # time, and over all values at once they take as long.
        return jnp.sum((levels <= value).astype(jnp.float32), axis=1)

    in_columns = jax.lax.map(up_to, jnp.arange(largest + 1, dtype=jnp.float32))
    counts = jnp.sum(in_columns.astype(jnp.int32), axis=2).T
    first = jnp.min(jnp.where(counts > 0, counts, levels[0].size), axis=1, keepdims=True)
    rest = levels[0].size - first
    table = jnp.round((counts - first) * (255.0 / jnp.maximum(rest, 1)))
    flat = levels.reshape(len(levels), -1).astype(jnp.int32)
    spread = jnp.take_along_axis(table, flat, axis=1).reshape(levels.shape)
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
