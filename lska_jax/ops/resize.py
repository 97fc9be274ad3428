"""Maps brought to another size, as PyTorch's ``interpolate`` does it.

Bilinear: pixel i of n lies at (i + 0.5) / n of the map, what lies beyond the outermost centres is
theirs, and nothing is smoothed when a map shrinks (``align_corners=False``, no antialiasing).
Nearest, for a map that is about half of the wanted one: pixel i of n is pixel floor(i H / n) of H.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Whole factors up to it are sums of shifted maps; others are products with a matrix.
_LARGEST_FACTOR = 8


def resize_bilinear(
    maps: Float[Array, "batch height width channels"], size: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """Return maps of another height and width.

    Args:
      maps: (B, H, W, C), float32 or bfloat16.
      size: wanted height and width.

    Returns:
      (B, *size, C) in the dtype of ``maps``, computed in float32.
    """
    wide = maps.astype(jnp.float32)
    for axis, length in zip((1, 2), size, strict=True):
        given = wide.shape[axis]
        if length == given:
            continue
        if length % given == 0 and length // given <= _LARGEST_FACTOR:
            wide = _stretch(wide, axis, length // given)
        else:
            wide = _multiply(axis_weights(length, given), wide, axis)
    return wide.astype(maps.dtype)


def axis_weights(
    length: int,
    given: int,
    *,
    wanted: Array | float | None = None,
    source: Array | float | None = None,
) -> Float[Array, "length given"]:
    """Return what each pixel of an axis takes of each given one, a matrix whose rows sum to one.

    The sizes may be arrays, for axes that are filled in part: rows from ``wanted`` on repeat the
    last, and pixels from ``source`` on are not read.

    Args:
      length: rows of the matrix.
      given: its columns.
      wanted: how many pixels are wanted; None is ``length``.
      source: how many of the given are there; None is ``given``.
    """
    wanted = jnp.asarray(length if wanted is None else wanted, jnp.float32)
    source = jnp.asarray(given if source is None else source, jnp.float32)
    place = (jnp.arange(length, dtype=jnp.float32) + 0.5) * (source / wanted) - 0.5
    place = jnp.clip(place, 0.0, source - 1.0)
    distance = jnp.abs(place[:, None] - jnp.arange(given, dtype=jnp.float32)[None, :])
    return jnp.maximum(1.0 - distance, 0.0)


def repeat_nearest(
    maps: Float[Array, "batch height width channels"], size: tuple[int, int]
) -> Float[Array, "batch new_height new_width channels"]:
    """Return every pixel twice along both axes, at a size that is about twice that of the maps.

    It is PyTorch's nearest resize; that of ``jax.image.resize`` takes other pixels at odd sizes.
    Maps of half the size, rounded up, are repeated and cut, as those of strided convolutions are.
    Of maps whose half was rounded down, as patches without padding leave them, one pixel is there
    three times.

    Args:
      maps: (B, H, W, C).
      size: wanted height and width, of which H and W are the halves.

    Raises:
      ValueError: they are not.
    """
    _, height, width, _ = maps.shape
    for axis, given, wanted in ((1, height, size[0]), (2, width, size[1])):
        if given == -(wanted // -2):
            maps = jnp.repeat(maps, 2, axis=axis)
            maps = maps[:, :wanted] if axis == 1 else maps[:, :, :wanted]
        elif given == wanted // 2:
            maps = jnp.take(maps, np.arange(wanted) * given // wanted, axis=axis)
        else:
            raise ValueError(f"a map of {height} x {width} is not half of {size[0]} x {size[1]}.")
    return maps


def _multiply(weights: Array, maps: Array, axis: int) -> Array:
    if axis == 1:
        return jnp.einsum("oh,bhwc->bowc", weights, maps, precision=lax.Precision.HIGHEST)
    return jnp.einsum("ow,bhwc->bhoc", weights, maps, precision=lax.Precision.HIGHEST)


def _stretch(maps: Array, axis: int, factor: int) -> Array:
    """Return an axis ``factor`` times as long: each of its phases mixes two neighbours."""
    length = maps.shape[axis]
    pads = [(0, 0)] * 4
    pads[axis] = (1, 1)
    padded = jnp.pad(maps, pads, mode="edge")
    before, centre, behind = (
        lax.slice_in_dim(padded, start, start + length, axis=axis) for start in range(3)
    )
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        neighbour = before if offset < 0 else behind
        phases.append(centre * (1.0 - abs(offset)) + neighbour * abs(offset) if offset else centre)
    shape = (*maps.shape[:axis], factor * length, *maps.shape[axis + 1 :])
    return jnp.stack(phases, axis=axis + 1).reshape(shape)
