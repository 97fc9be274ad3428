"""One depth-wise convolution as a GPU kernel, forward and backward, through Pallas and Triton.

    y[b, i, j, c] = sum_{u, v} x[b, i + d(u - (kh-1)/2), j + d(v - (kw-1)/2), c] * w[u, v, c]

A program makes a strip of one row, some columns by some channels: it reads the strip once a tap,
shifted, from the caches, and writes it once. The input gradient is the same kernel with the taps
flipped; a program of the taps' gradient sums one tap over some rows, and XLA adds these sums.

The kernels were lowered for CUDA and ROCm and compared in interpret mode; they never ran on a GPU.
"auto" takes them only where ``python -m benchmarks.tune`` measured that they are faster.
"""

import functools
from typing import Any

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
# Of a strip; powers of two, as Triton asks for. 1024 values are 8 for each of 128 threads.
_COLUMNS, _CHANNELS = 32, 32
_COMPILER_PARAMS = plgpu.CompilerParams(num_warps=4)
# Rows that one program of the taps' gradient sums.
_ROWS_A_SUM = 64

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
            f"a kernel may have up to {MOST_TAPS} taps in the GPU kernel, got {kernel.shape}; "
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
    batch, height, width, channels = images.shape
    return pl.pallas_call(
        functools.partial(_forward_kernel, dilation=dilation),
        grid=(batch * height, pl.cdiv(width, _COLUMNS), pl.cdiv(channels, _CHANNELS)),
        out_shape=result_type(images.shape, images.dtype, images, taps),
        compiler_params=_COMPILER_PARAMS,
        interpret=interpret,
        name="depthwise_conv_forward",
    )(images, taps)


def _run_taps_gradient(
    dilation: int, size: tuple[int, int], interpret: Any, images: Array, gradient: Array
) -> Array:
    batch, height, _, channels = images.shape
    sums = pl.cdiv(batch * height, _ROWS_A_SUM)
    shape = (sums, *size, channels)
    return jnp.sum(
        pl.pallas_call(
            functools.partial(_taps_gradient_kernel, dilation=dilation),
            grid=(sums, size[0] * size[1], pl.cdiv(channels, _CHANNELS)),
            out_shape=result_type(shape, jnp.float32, images, gradient),
            compiler_params=_COMPILER_PARAMS,
            interpret=interpret,
            name="depthwise_conv_taps_gradient",
        )(images, gradient),
        axis=0,
    )


def _forward_kernel(images: Any, taps: Any, out: Any, *, dilation: int) -> None:
    height, (rows, columns, channels) = images.shape[1], taps.shape
    image, row = _divide(pl.program_id(0), height)
    first = pl.program_id(1) * _COLUMNS
    lanes = pl.program_id(2) * _CHANNELS + jnp.arange(_CHANNELS)
    total = jnp.zeros((_COLUMNS, _CHANNELS), jnp.float32)
    for u in range(rows):
        for v in range(columns):
            place = (row + dilation * (u - rows // 2), first + dilation * (v - columns // 2))
            weights = plgpu.load(taps.at[u, v, lanes], mask=lanes < channels, other=0.0)
            total += _load(images, image, *place, lanes) * weights.astype(jnp.float32)[None, :]
    strip, is_inside = _strip(out, image, row, first, lanes)
    plgpu.store(strip, total.astype(out.dtype), mask=is_inside)


def _taps_gradient_kernel(images: Any, gradient: Any, sums: Any, *, dilation: int) -> None:
    batch, height, width, channels = images.shape
    _, rows, columns, _ = sums.shape
    piece = pl.program_id(0)
    u, v = _divide(pl.program_id(1), columns)
    row_offset, column_offset = dilation * (u - rows // 2), dilation * (v - columns // 2)
    lanes = pl.program_id(2) * _CHANNELS + jnp.arange(_CHANNELS)

    def add_row(number: Any, total: jax.Array) -> jax.Array:
        image, row = _divide(number, height)
        for first in range(0, width, _COLUMNS):
            values = _load(images, image, row + row_offset, first + column_offset, lanes)
            total += values * _load(gradient, image, row, first, lanes)
        return total

    start = piece * _ROWS_A_SUM
    stop = jnp.minimum(start + _ROWS_A_SUM, batch * height)
    zeros = jnp.zeros((_COLUMNS, _CHANNELS), jnp.float32)
    total = jnp.sum(lax.fori_loop(start, stop, add_row, zeros), axis=0)
    plgpu.store(sums.at[piece, u, v, lanes], total, mask=lanes < channels)


def _load(maps: Any, image: Any, row: Any, first: Any, lanes: Any) -> jax.Array:
    """Return a strip in float32, zero where it reaches beyond the map."""
    strip, is_inside = _strip(maps, image, row, first, lanes)
    return plgpu.load(strip, mask=is_inside, other=0.0).astype(jnp.float32)


def _strip(maps: Any, image: Any, row: Any, first: Any, lanes: Any) -> tuple[Any, jax.Array]:
    """Return the (columns, channels) of a row from column ``first``, and which are inside."""
    _, height, width, channels = maps.shape
    columns = first + jnp.arange(_COLUMNS)
    is_column = (columns >= 0) & (columns < width) & (row >= 0) & (row < height)
    strip = maps.at[image, row, columns[:, None], lanes[None, :]]
    return strip, is_column[:, None] & (lanes < channels)[None, :]


def _divide(number: Any, divisor: int) -> tuple[Any, Any]:
    """Return quotient and rest of numbers that are not negative."""
    return lax.div(number, jnp.int32(divisor)), lax.rem(number, jnp.int32(divisor))
