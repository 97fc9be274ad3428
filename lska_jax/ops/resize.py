"""Maps brought to another size, as PyTorch's ``interpolate`` does it.

Bilinear: pixel i of n lies at (i + 0.5) / n of the map, what lies beyond the outermost centres is
theirs, and nothing is smoothed when a map shrinks (``align_corners=False``, no antialiasing).
Nearest, for a map that is about half of the wanted one: pixel i of n is pixel floor(i H / n) of H.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.platform import target_platform
from lska_jax.ops.reverse_mode import reverse_mode_only

# Whole factors up to it are sums of shifted maps; others are products with a matrix.
_LARGEST_FACTOR = 8


@reverse_mode_only
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
            # XLA's CPU compiler reads what autodiff makes of it many times over.
            stretch = _stretch_for_cpu if target_platform() == "cpu" else _stretch
            wide = stretch(wide, axis, length // given)
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
    for offset in _offsets(factor):
        neighbour = before if offset < 0 else behind
        phases.append(centre * (1.0 - abs(offset)) + neighbour * abs(offset) if offset else centre)
    shape = (*maps.shape[:axis], factor * length, *maps.shape[axis + 1 :])
    return jnp.stack(phases, axis=axis + 1).reshape(shape)


def _offsets(factor: int) -> list[float]:
    """Return how far, in given pixels, the new ones lie behind the centre of theirs."""
    return [(phase + 0.5) / factor - 0.5 for phase in range(factor)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _stretch_for_cpu(maps: Array, axis: int, factor: int) -> Array:
    return _stretch(maps, axis, factor)


def _forward(maps: Array, axis: int, factor: int) -> tuple[Array, None]:
    return _stretch(maps, axis, factor), None


def _backward(axis: int, factor: int, _: None, gradient: Array) -> tuple[Array]:
    """Return the sum of what each pixel gave to the new ones: its own and those of both sides."""
    length = gradient.shape[axis] // factor
    zero = jnp.zeros((), gradient.dtype)
    offsets = _offsets(factor)

    def padded(array: Array, before: int, behind: int) -> Array:
        edges = [(0, 0, 0)] * array.ndim
        edges[axis] = (before, behind, 0)
        return lax.pad(array, zero, edges)

    beside = padded(gradient, factor, factor)

    def phase_of(start: int) -> Array:
        """Return every ``factor``-th pixel from the one ``start`` behind the first's on."""
        first = start + factor
        end = first + (length - 1) * factor + 1
        return lax.slice_in_dim(beside, first, end, factor, axis)

    total = jnp.zeros((), gradient.dtype)
    of_first = of_last = total
    for phase, offset in enumerate(offsets):
        total += phase_of(phase) * (1.0 - abs(offset))
        if offset > 0:
            total += phase_of(phase - factor) * offset
            end = gradient.shape[axis] - factor + phase
            of_last += lax.slice_in_dim(gradient, end, end + 1, axis=axis) * offset
        elif offset < 0:
            total += phase_of(phase + factor) * -offset
            of_first += lax.slice_in_dim(gradient, phase, phase + 1, axis=axis) * -offset
    # Beyond the outermost pixels there are copies of them.
    ends = padded(of_first, 0, length - 1) + padded(of_last, length - 1, 0)
    return (total + ends,)


_stretch_for_cpu.defvjp(_forward, _backward)
