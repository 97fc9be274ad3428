"""RoIAlign (arXiv 1703.06870, section 3): what maps hold inside boxes, at a fixed size.

A box is cut into side x side bins, and a bin is the mean of its taps, which interpolate the map
bilinearly. Taps lie on a grid, so the mean is a product of two small matrices of averaged hat
functions with the map between them:

    out = Wy F Wx^T        Wy[i, h] = mean over taps t of bin i of max(0, 1 - |h - y_t|)

for any number of taps. On CPU boxes are visited one after the other, and only the cells that each
one covers are read; elsewhere whole maps meet the matrices of many boxes at once, as matrix units
like it, at more operations.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from lska_jax.ops.platform import target_platform

# Sides of the pieces of a map that are read at once on CPU, in cells.
_TILE = 8
# Boxes whose matrices meet a map at once, elsewhere.
_BOXES_AT_ONCE = 64
# Taps of a bin that can lie within a cell of a given one, at most: with 6 taps or more they are at
# least 5 / 6 apart.
_NEAREST_TAPS = 5


class _Axis(NamedTuple):
    """How boxes are sampled along one axis, () or (boxes,) each, in cells of a map.

    Attributes:
      start: of the first bin.
      bin_size: of each bin.
      taps: of each bin, a whole number as float32; 0 for boxes without extent.
    """

    start: Array
    bin_size: Array
    taps: Array


def pyramid_levels(
    boxes: Float[Array, "*boxes 4"], *, levels: int = 4, finest: float = 56.0
) -> Int[Array, "*boxes"]:
    """Return the level of a pyramid that each box is read from, 0 for the finest map.

        floor(log2(sqrt(width height) / finest + 1e-6)), within 0 and levels - 1

    Args:
      boxes: (..., 4) in pixels.
      levels: how many maps there are.
      finest: side of the squares from which on the second one is read, half of it.
    """
    sides = jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0.0).astype(jnp.float32)
    found = jnp.floor(jnp.log2(jnp.sqrt(sides[..., 0] * sides[..., 1]) / finest + 1e-6))
    return jnp.clip(found, 0, levels - 1).astype(jnp.int32)


def roi_align(
    maps: Sequence[Float[Array, "batch _ _ channels"]],
    boxes: Float[Array, "batch boxes 4"],
    *,
    strides: Sequence[int],
    side: int,
    levels: Int[Array, "batch boxes"] | None = None,
    taps: int = 0,
) -> Float[Array, "batch boxes side side channels"]:
    """Return what the maps hold inside boxes.

    Pixel centres are at +.5, as with ``aligned`` elsewhere. A tap more than one cell outside the
    map counts 0, and others outside take the border. Boxes carry no gradient.

    Args:
      maps: (B, H, W, C) each, float32 or bfloat16.
      boxes: (B, R, 4) corners in pixels of the image.
      strides: pixels for each cell, of every map.
      side: bins along each axis.
      levels: (B, R) which map a box is read from; None is the first.
      taps: of a bin along each axis; 0 is as many as a bin has cells, rounded up.

    Returns:
      (B, R, side, side, C) in the dtype of the maps.
    """
    boxes = lax.stop_gradient(boxes.astype(jnp.float32))
    if levels is None:
        levels = jnp.zeros(boxes.shape[:2], jnp.int32)
    scales = tuple(1.0 / stride for stride in strides)
    if target_platform() == "cpu":
        return _visit(tuple(maps), boxes, levels, scales, side, taps)
    return _multiply(tuple(maps), boxes, levels, scales, side, taps)


def _axes(boxes: Array, scale: float, side: int, taps: int) -> tuple[_Axis, _Axis]:
    """Return how boxes (..., 4) are sampled along y and x."""
    low, high = boxes[..., :2] * scale - 0.5, boxes[..., 2:] * scale - 0.5
    bins = (high - low) / side
    counts = jnp.full_like(bins, taps) if taps else jnp.maximum(jnp.ceil(bins), 0.0)
    y, x = (_Axis(low[..., axis], bins[..., axis], counts[..., axis]) for axis in (1, 0))
    return y, x


def _weights(axis: _Axis, cells: Array, length: int, *, side: int, taps: int) -> Array:
    """Return the share of cells in every bin, (..., side, cells) float32.

    Args:
      axis: of one box, or (..., 1, 1) of several.
      cells: (cells,) their places, float32.
      length: of the map along the axis.
      side: bins.
      taps: as in ``roi_align``.
    """
    bins = jnp.arange(side, dtype=jnp.float32)[:, None]
    rank = axis.start.ndim
    if rank:
        bins, cells = (lax.expand_dims(a, range(rank - 2)) for a in (bins, cells[None]))
    else:
        cells = cells[None]
    start = axis.start + bins * axis.bin_size
    count = jnp.maximum(axis.taps, 1.0)
    step = axis.bin_size / count
    looked_at = taps or _NEAREST_TAPS
    # Half a step of room, for the rounding.
    nearest = jnp.floor((cells - 1.0 - start) / jnp.where(step > 0, step, 1.0) - 1.0)
    first = jnp.clip(nearest, 0.0, jnp.maximum(count - looked_at, 0.0))
    total = jnp.zeros(first.shape, jnp.float32)
    for number in range(looked_at):
        tap = first + number
        place = start + (tap + 0.5) * axis.bin_size / count
        is_inside = (place >= -1.0) & (place <= length) & (tap < axis.taps)
        inner = jnp.clip(place, 0.0, length - 1.0)
        total += jnp.where(is_inside, jnp.maximum(1.0 - jnp.abs(cells - inner), 0.0), 0.0)
    return total / count


# Whole maps.


def _multiply(
    maps: tuple[Array, ...],
    boxes: Array,
    levels: Array,
    scales: tuple[float, ...],
    side: int,
    taps: int,
) -> Array:
    batch, count, _ = boxes.shape
    at_once = min(count, _BOXES_AT_ONCE)
    padding = -count % max(at_once, 1)
    # Boxes of a level that there is not meet no map.
    levels = jnp.pad(levels, ((0, 0), (0, padding)), constant_values=-1)
    boxes = jnp.pad(boxes, ((0, 0), (0, padding), (0, 0)))

    def some(chosen: tuple[Array, Array]) -> Array:
        of_boxes, of_levels = chosen
        total = jnp.zeros((batch, at_once, side, side, maps[0].shape[-1]), jnp.float32)
        for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
            matrices = []
            for axis, length in zip(
                _axes(of_boxes, scale, side, taps), features.shape[1:3], strict=True
            ):
                axis = _Axis(*(a[..., None, None] for a in axis))
                cells = jnp.arange(length, dtype=jnp.float32)
                shares = _weights(axis, cells, length, side=side, taps=taps)
                matrices.append(shares)
            is_here = (of_levels == level)[..., None, None].astype(jnp.float32)
            rows = jnp.einsum(
                "brih,bhwc->briwc",
                (matrices[0] * is_here).astype(features.dtype),
                features,
                preferred_element_type=jnp.float32,
            ).astype(features.dtype)
            total += jnp.einsum(
                "brjw,briwc->brijc",
                matrices[1].astype(features.dtype),
                rows,
                preferred_element_type=jnp.float32,
            )
        return total.astype(maps[0].dtype)

    chunks = -(-count // max(at_once, 1))
    split = tuple(
        jnp.moveaxis(a.reshape(batch, chunks, at_once, *a.shape[2:]), 1, 0) for a in (boxes, levels)
    )
    found = jnp.moveaxis(lax.map(jax.checkpoint(some), split), 0, 1)
    return found.reshape(batch, chunks * at_once, *found.shape[3:])[:, :count]


# Box by box.


class _Tile(NamedTuple):
    """Cells of a map that a box covers, at most ``_TILE`` along each axis.

    Attributes:
      box: place of the box among all of the batch.
      place: where the cells lie in the maps (B, H, W, C): image, first row, first column, 0.
      y_shares: (side, rows) of each cell in every bin.
      x_shares: (side, columns).
    """

    box: Array
    place: tuple[Any, ...]
    y_shares: Array
    x_shares: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _visit(
    maps: tuple[Array, ...],
    boxes: Array,
    levels: Array,
    scales: tuple[float, ...],
    side: int,
    taps: int,
) -> Array:
    batch, count, _ = boxes.shape
    out = jnp.zeros((batch * count, side, side, maps[0].shape[-1]), jnp.float32)
    order, bounds = _by_level(levels, len(maps))
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        of_level = (order, bounds[level], bounds[level + 1])
        read = functools.partial(_read, features)
        size = features.shape[1:3]
        out = _over_tiles(read, out, boxes, of_level, size=size, scale=scale, side=side, taps=taps)
    return out.reshape(batch, count, *out.shape[1:]).astype(maps[0].dtype)


def _forward(
    maps: tuple[Array, ...], boxes: Array, levels: Array, *static: Any
) -> tuple[Array, tuple[tuple[Array, ...], Array, Array]]:
    # The backward pass needs shapes and dtypes of the maps: arrays without channels have them.
    empty = tuple(jnp.zeros((*features.shape[:3], 0), features.dtype) for features in maps)
    return _visit(maps, boxes, levels, *static), (empty, boxes, levels)


def _backward(
    scales: tuple[float, ...],
    side: int,
    taps: int,
    residuals: tuple[tuple[Array, ...], Array, Array],
    gradient: Array,
) -> tuple[tuple[Array, ...], None, None]:
    maps, boxes, levels = residuals
    write = functools.partial(_write, gradient.reshape(-1, *gradient.shape[2:]).astype(jnp.float32))
    order, bounds = _by_level(levels, len(maps))
    gradients = []
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        of_level = (order, bounds[level], bounds[level + 1])
        found = jnp.zeros((*features.shape[:3], gradient.shape[-1]), jnp.float32)
        size = features.shape[1:3]
        found = _over_tiles(
            write, found, boxes, of_level, size=size, scale=scale, side=side, taps=taps
        )
        gradients.append(found.astype(features.dtype))
    return tuple(gradients), None, None


_visit.defvjp(_forward, _backward)


def _by_level(levels: Array, count: int) -> tuple[Array, Array]:
    """Return the boxes of a batch ordered by level, and where in that order each level begins."""
    flat = levels.reshape(-1)
    begins = jnp.sum(flat[None] < jnp.arange(count + 1, dtype=jnp.int32)[:, None], axis=1)
    return jnp.argsort(flat), begins


def _over_tiles(
    step: Callable[[_Tile, Array], Array],
    carry: Array,
    boxes: Array,
    of_level: tuple[Array, Array, Array],
    *,
    size: tuple[int, ...],
    scale: float,
    side: int,
    taps: int,
) -> Array:
    """Return what ``step`` makes of carry, tile by tile of all boxes of a level.

    Args:
      step: (tile, carry) -> carry.
      carry: to begin with.
      boxes: (B, R, 4).
      of_level: order of the boxes, and where in it the level begins and ends.
      size: height and width of the map.
      scale: cells of the map for each pixel.
      side: bins.
      taps: as in ``roi_align``.
    """
    order, begin, end = of_level
    per_image = boxes.shape[1]
    sampled = _axes(boxes.reshape(-1, 4), scale, side, taps)
    tile_size = [min(length, _TILE) for length in size]

    def visit_box(place: Array, carry: Array) -> Array:
        box = _row(order, place)
        axes = [_Axis(*(_row(array, box) for array in axis)) for axis in sampled]
        spans = [_tiles_of(axis, length, side) for axis, length in zip(axes, size, strict=True)]

        def visit_tile(number: Array, carry: Array) -> Array:
            down, across = number // spans[1][1], number % spans[1][1]
            corner, shares = [], []
            for axis, length, cells, (first, _), index in zip(
                axes, size, tile_size, spans, (down, across), strict=True
            ):
                wanted = first + index * cells
                # At the border a tile begins earlier, with cells that another one has had.
                begins = jnp.minimum(wanted, length - cells)
                places = begins + jnp.arange(cells, dtype=jnp.int32)
                found = _weights(axis, places.astype(jnp.float32), length, side=side, taps=taps)
                corner.append(begins)
                shares.append(jnp.where((places >= wanted)[None], found, 0.0))
            tile = _Tile(box, (box // per_image, *corner, 0), *shares)
            return step(tile, carry)

        return lax.fori_loop(0, spans[0][1] * spans[1][1], visit_tile, carry)

    return lax.fori_loop(begin, end, visit_box, carry)


def _tiles_of(axis: _Axis, length: int, side: int) -> tuple[Array, Array]:
    """Return the first cell that a box reads along an axis, and how many tiles it takes."""
    end = axis.start + side * axis.bin_size
    # A box whose corners are in reverse is read backwards.
    first, last = jnp.minimum(axis.start, end), jnp.maximum(axis.start, end)
    low, high = (jnp.clip(jnp.floor(place), 0.0, length - 1.0) for place in (first, last + 1.0))
    tiles = jnp.floor((high - low) / min(length, _TILE)) + 1.0
    return low.astype(jnp.int32), jnp.where(axis.taps > 0, tiles, 0.0).astype(jnp.int32)


def _read(features: Array, tile: _Tile, found: Array) -> Array:
    """Add what a tile of the map gives to the result (boxes, side, side, C)."""
    shape = (1, tile.y_shares.shape[1], tile.x_shares.shape[1], features.shape[-1])
    cells = lax.dynamic_slice(features, tile.place, shape)[0].astype(jnp.float32)
    sums = _row(found, tile.box) + _between(tile.y_shares, cells, tile.x_shares)
    return lax.dynamic_update_index_in_dim(found, sums, tile.box, 0)


def _write(gradient: Array, tile: _Tile, found: Array) -> Array:
    """Add what the gradient of a box gives to that of its tile of the map."""
    part = _between(tile.y_shares.T, _row(gradient, tile.box), tile.x_shares.T)[None]
    sums = lax.dynamic_slice(found, tile.place, part.shape) + part
    return lax.dynamic_update_slice(found, sums, tile.place)


def _row(array: Array, index: Array) -> Array:
    # Brackets would make it a gather, which XLA's CPU backend does not merge with its neighbours.
    return lax.dynamic_index_in_dim(array, index, keepdims=False)


def _between(left: Array, cells: Array, right: Array) -> Array:
    """Return left cells right^T, of two matrices and a map (H, W, C)."""
    height, width, channels = cells.shape
    rows = (left @ cells.reshape(height, width * channels)).reshape(-1, width, channels)
    # Repeated, since a product of one matrix with all rows would be transposed on the way.
    return jnp.matmul(jnp.broadcast_to(right[None], (rows.shape[0], *right.shape)), rows)
