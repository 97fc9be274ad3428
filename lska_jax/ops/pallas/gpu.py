"""One depth-wise convolution as a GPU kernel, forward and backward, through Pallas and Triton.

    y[b, i, j, c] = sum_{u, v} x[b, i + d(u - (kh-1)/2), j + d(v - (kw-1)/2), c] * w[u, v, c]

A program makes a tile, some pixels of one image by some channels: it reads it once a tap, shifted,
from the caches, and writes it once. The input gradient is the same kernel with the taps flipped; a
program of the taps' gradient sums some taps over some tiles, and XLA adds these sums.

Measured on a GPU (docs/performance.md), but taken by name only: JAX has announced, from 0.11 on,
that it will remove Pallas's Triton backend. For ROCm the kernels were lowered and never run.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float

from lska_jax.ops.pallas.kernels import result_type
from lska_jax.ops.pallas.placement import by_platform, on_own_images

_PLATFORMS = ("cuda", "rocm")
# A kernel is unrolled over its taps.
MOST_TAPS = 169
# Of a tile; powers of two, as Triton asks for. 1024 values are 8 for each of 128 threads.
_POSITIONS, _CHANNELS = 32, 32
# Of a tile for a kernel that is no line.
_ROWS_OF_A_SQUARE = 4
_COMPILER_PARAMS = plgpu.CompilerParams(num_warps=4)
# That one program of the taps' gradient sums, each in registers of its own.
_TAPS_A_PROGRAM = 9
# Programs of the taps' gradient, to keep all multiprocessors of a large GPU busy.
_PROGRAMS = 2048

_Static = tuple[int, bool | None]


def depthwise_conv_on_gpu(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width 1 channels"],
    *,
    dilation: int,
    interpret: bool | None = None,
) -> Float[Array, "batch height width channels"]:
    """Convolve every channel with its own kernel, keeping the size.

    In a program for several devices, trace under ``jax.set_mesh(mesh)``; see ``placement``.

    Args:
      images: (B, H, W, C), float32 or bfloat16.
      kernel: (kh, kw, 1, C), odd kh and kw; cast to the dtype of ``images``. Sums are float32.
      dilation: distance between taps in pixels, along both axes.
      interpret: compute with JAX operations instead of a GPU kernel; None does so wherever the
        program is compiled for something other than a GPU.

    Returns:
      (B, H, W, C) in the dtype of ``images``.

    Raises:
      ValueError: more than ``MOST_TAPS`` taps.
    """
    height, width = kernel.shape[:2]
    if height * width > MOST_TAPS:
        raise ValueError(
            f"A kernel may have up to {MOST_TAPS} taps in the GPU kernel, got {kernel.shape}; "
            "use another implementation."
        )
    # Taps of a kernel larger than the map that only ever meet padding are left out.
    rows, columns = (
        max(0, size // 2 - (length - 1) // dilation)
        for size, length in zip((height, width), images.shape[1:3], strict=True)
    )
    taps = kernel[rows : height - rows, columns : width - columns, 0].astype(jnp.float32)
    return on_own_images(functools.partial(_convolve, (dilation, interpret)), images, taps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(static: _Static, images: Array, taps: Array) -> Array:
    dilation, interpret = static
    run = functools.partial(_run_forward, dilation)
    # Rounded here, so that sums over devices of the taps' gradient are float32.
    return by_platform(run, interpret, images, taps.astype(images.dtype), platforms=_PLATFORMS)


def _convolve_forward(
    static: _Static, images: Array, taps: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(static, images, taps), (images, taps)


def _convolve_backward(
    static: _Static, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    dilation, interpret = static
    images, taps = residuals
    run = functools.partial(_run_taps_gradient, dilation, (taps.shape[0], taps.shape[1]))
    taps_gradient = by_platform(run, interpret, images, gradient, platforms=_PLATFORMS)
    return _convolve(static, gradient, taps[::-1, ::-1]), taps_gradient


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _run_forward(dilation: int, interpret: Any, images: Array, taps: Array) -> Array:
    tile = _Tile.of(images.shape, taps.shape)
    return pl.pallas_call(
        functools.partial(_forward_kernel, dilation=dilation, tile=tile),
        grid=(tile.number, pl.cdiv(images.shape[-1], _CHANNELS)),
        out_shape=result_type(images.shape, images.dtype, images, taps),
        compiler_params=_COMPILER_PARAMS,
        interpret=interpret,
        name="depthwise_conv_forward",
    )(images, taps)


def _run_taps_gradient(
    dilation: int, size: tuple[int, int], interpret: Any, images: Array, gradient: Array
) -> Array:
    tile, channels = _Tile.of(images.shape, size), images.shape[-1]
    groups, blocks = pl.cdiv(math.prod(size), _TAPS_A_PROGRAM), pl.cdiv(channels, _CHANNELS)
    sums = min(tile.number, pl.cdiv(_PROGRAMS, groups * blocks))
    shape = (sums, *size, channels)
    return jnp.sum(
        pl.pallas_call(
            functools.partial(
                _taps_gradient_kernel,
                dilation=dilation,
                tile=tile,
                taps_a_program=pl.cdiv(math.prod(size), groups),
                tiles_a_sum=pl.cdiv(tile.number, sums),
            ),
            # Programs that read the same tiles follow one another.
            grid=(groups, blocks, sums),
            out_shape=result_type(shape, jnp.float32, images, gradient),
            compiler_params=_COMPILER_PARAMS,
            interpret=interpret,
            name="depthwise_conv_taps_gradient",
        )(images, gradient),
        axis=0,
    )


def _forward_kernel(images: Any, taps: Any, out: Any, *, dilation: int, tile: "_Tile") -> None:
    height, width, channels = taps.shape
    place = tile.place(pl.program_id(0))
    lanes = pl.program_id(1) * _CHANNELS + jnp.arange(_CHANNELS)
    total = jnp.zeros((_POSITIONS, _CHANNELS), jnp.float32)
    for u, v in itertools.product(range(height), range(width)):
        offset = (dilation * (u - height // 2), dilation * (v - width // 2))
        weights = plgpu.load(taps.at[u, v, lanes], mask=lanes < channels, other=0.0)
        total += _load(images, place, lanes, offset) * weights.astype(jnp.float32)[None, :]
    pixels, is_inside = _pixels(out, place, lanes)
    plgpu.store(pixels, total.astype(out.dtype), mask=is_inside)


def _taps_gradient_kernel(
    images: Any,
    gradient: Any,
    sums: Any,
    *,
    dilation: int,
    tile: "_Tile",
    taps_a_program: int,
    tiles_a_sum: int,
) -> None:
    _, height, width, channels = sums.shape
    piece = pl.program_id(2)
    lanes = pl.program_id(1) * _CHANNELS + jnp.arange(_CHANNELS)
    first = pl.program_id(0) * taps_a_program
    taps = [_divide(first + number, width) for number in range(taps_a_program)]
    offsets = [(dilation * (u - height // 2), dilation * (v - width // 2)) for u, v in taps]

    def add_tile(number: Any, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        place = tile.place(number)
        cotangents = _load(gradient, place, lanes)
        return tuple(
            total + cotangents * _load(images, place, lanes, offset)
            for total, offset in zip(totals, offsets, strict=True)
        )

    zeros = jnp.zeros((_POSITIONS, _CHANNELS), jnp.float32)
    start = piece * tiles_a_sum
    stop = jnp.minimum(start + tiles_a_sum, tile.number)
    totals = lax.fori_loop(start, stop, add_tile, (zeros,) * taps_a_program)
    for (u, v), total in zip(taps, totals, strict=True):
        is_inside = (lanes < channels) & (u < height)
        plgpu.store(sums.at[piece, u, v, lanes], jnp.sum(total, axis=0), mask=is_inside)


class _Tile(NamedTuple):
    """Pixels that a program handles at once, ``rows`` by ``columns`` of one image.

    Its longer side lies along the kernel, so that taps find in the caches what others have read.
    """

    images: int
    rows: int
    columns: int
    tiles_down: int
    tiles_across: int

    @classmethod
    def of(cls, maps_shape: Sequence[int], kernel_size: Sequence[int]) -> "_Tile":
        """Return the tiles of maps (B, H, W, C) for a kernel (kh, kw, ...)."""
        batch, height, width, _ = maps_shape
        if kernel_size[0] == 1:
            columns = min(_POSITIONS, pl.next_power_of_2(width))
            rows = _POSITIONS // columns
        else:
            most_rows = _POSITIONS if kernel_size[1] == 1 else _ROWS_OF_A_SQUARE
            rows = min(most_rows, pl.next_power_of_2(height))
            columns = _POSITIONS // rows
        return cls(batch, rows, columns, pl.cdiv(height, rows), pl.cdiv(width, columns))

    @property
    def number(self) -> int:
        """Tiles of all images."""
        return self.images * self.tiles_down * self.tiles_across

    def place(self, number: Any) -> tuple[Any, jax.Array, jax.Array]:
        """Return image, rows and columns of a tile's pixels."""
        number, across = _divide(number, self.tiles_across)
        image, down = _divide(number, self.tiles_down)
        row, column = _divide(jnp.arange(_POSITIONS), self.columns)
        return image, down * self.rows + row, across * self.columns + column


def _load(maps: Any, place: Any, lanes: jax.Array, offset: tuple[Any, Any] = (0, 0)) -> jax.Array:
    """Return a tile's pixels in float32, zero where they lie beyond the map."""
    image, rows, columns = place
    pixels, is_inside = _pixels(maps, (image, rows + offset[0], columns + offset[1]), lanes)
    return plgpu.load(pixels, mask=is_inside, other=0.0).astype(jnp.float32)


def _pixels(maps: Any, place: Any, lanes: jax.Array) -> tuple[Any, jax.Array]:
    """Return the (positions, channels) of a tile, and which are inside."""
    _, height, width, channels = maps.shape
    image, rows, columns = place
    is_pixel = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    pixels = maps.at[image, rows[:, None], columns[:, None], lanes[None, :]]
    return pixels, is_pixel[:, None] & (lanes < channels)[None, :]


def _divide(number: Any, divisor: int) -> tuple[Any, Any]:
    """Return quotient and rest of numbers that are not negative."""
    return lax.div(number, jnp.int32(divisor)), lax.rem(number, jnp.int32(divisor))
