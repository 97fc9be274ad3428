"""A VAN block's whole attention as one TPU kernel, forward and backward.

    u = gelu(W_in x + b_in),    z = chain(u)
    y = s . (x + W_out (u . (W_gate z + b_gate)) + b_out)          (s: layer scale)

``chain`` is the chain of depth-wise convolutions of ``depthwise_chain``: LSKA's four
(arXiv 2309.01439, eq. 4-6), LKA's two (arXiv 2202.09741, eq. 1-2). Everything but x and y stays in
the core's memory; the backward kernel computes it again, reads x and the gradient, and writes one
map. A block holds all channels of some images, because the 1x1 convolutions mix them.

The kernels were compiled for TPU v5e and compared in interpret mode; they never ran on a TPU.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.ops.checks import Dilations
from lska_jax.ops.pallas.attention_cost import (
    attention_fits,
    block,
    compiler_params,
    cost,
    vmem_bytes,
)
from lska_jax.ops.pallas.blocks import (
    BATCH_FIRST,
    MAPS_FIRST,
    VMEM_BYTES,
    lane_blocks,
    live_taps,
)
from lska_jax.ops.pallas.chain import check_chain
from lska_jax.ops.pallas.kernels import (
    Interpret,
    convolve,
    load_rows,
    pull_back,
    result_type,
    store_rows,
)
from lska_jax.ops.pallas.placement import by_platform, on_own_images
from lska_jax.ops.pallas.products import (
    as_matrix,
    dot,
    gelu,
    gelu_and_slope,
    whole_sublanes,
)

# Rows of the packed (rows, C) array: the biases of the 1x1 convolutions and the factor of the
# shortcut, then the biases of the chain's steps, then its taps.
_IN, _GATE, _OUT, _SHORTCUT, _FIRST_STEP = 0, 1, 2, 3, 4

_Static = tuple[tuple[tuple[int, int], ...], tuple[int, ...], Interpret | None]
_Pointwise = tuple[Float[Array, "channels channels"], Float[Array, " channels"]]


def fused_attention(
    images: Float[Array, "batch height width channels"],
    proj_in: _Pointwise,
    kernels: Sequence[Float[Array, "_ _ 1 channels"]],
    biases: Sequence[Float[Array, " channels"]],
    gate: _Pointwise,
    proj_out: _Pointwise,
    *,
    dilations: Dilations,
    scale: Float[Array, " channels"] | None = None,
    shortcut: Float[Array, " channels"] | None = None,
    interpret: Interpret | None = None,
) -> Float[Array, "batch height width channels"]:
    """Apply 1x1, GELU, the large-kernel gate, 1x1 and the shortcut, reading the map once.

    Kernels and biases are rounded to the dtype of ``images``; matrix products take inputs of that
    dtype and sum in float32; u and its gradient as a factor are kept in that dtype, the maps of the
    chain in float32.

    Args:
      images: (B, H, W, C), float32 or bfloat16, normalised.
      proj_in: kernel (C, C) and bias (C,) of the first 1x1.
      kernels: of the chain, as in ``depthwise_chain``.
      biases: of the chain, one a kernel.
      gate: kernel and bias of the 1x1 behind the chain.
      proj_out: kernel and bias of the last 1x1.
      dilations: of the chain, one a kernel.
      scale: layer scale (C,) of the whole; it multiplies the last 1x1 and the shortcut, so that it
        and its gradient cost no pass over the map. None is one.
      shortcut: factor (C,) of the shortcut beside the layer scale, from a folded BatchNorm; None is
        one. Both stay float32: bfloat16 would lose what makes them differ from 1.
      interpret: as in ``depthwise_chain``.

    Returns:
      (B, H, W, C) in the dtype of ``images``.

    Raises:
      ValueError: kernels, biases and dilations that do not belong together, or
        ``attention_fits`` is false.
    """
    sizes, dilations = check_chain(images, kernels, biases, dilations)
    shape = images.shape
    if not attention_fits(shape, images.dtype, kernel_sizes=sizes):
        raise ValueError(
            f"images {shape} {images.dtype} do not fit the fused attention: it needs "
            f"{vmem_bytes(shape, images.dtype, len(sizes)) >> 20} MiB of a core's memory, at most "
            f"{VMEM_BYTES >> 20} are allowed. Run the parts one by one."
        )
    factor = jnp.ones(shape[-1:], jnp.float32) if scale is None else scale.astype(jnp.float32)
    of_shortcut = factor if shortcut is None else factor * shortcut
    rows = [proj_in[1][None], gate[1][None], (factor * proj_out[1])[None], of_shortcut[None]]
    rows += [bias[None] for bias in biases]
    rows += [kernel.reshape(-1, shape[-1]) for kernel in kernels]
    packed = jnp.concatenate([row.astype(jnp.float32) for row in rows])
    three = (proj_in[0], gate[0], factor[None] * proj_out[0])
    matrices = jnp.stack([matrix.astype(jnp.float32) for matrix in three])
    run = functools.partial(_attention, (sizes, dilations, interpret))
    return on_own_images(run, images, matrices, packed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(static: _Static, images: Array, matrices: Array, rows: Array) -> Array:
    run = functools.partial(_run_forward, static)
    return by_platform(run, static[2], images, *_rounded(images, matrices, rows))


def _attention_forward(static: _Static, *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    return _attention(static, *arrays), arrays


def _attention_backward(
    static: _Static, arrays: tuple[Array, ...], gradient: Array
) -> tuple[Array, ...]:
    images, matrices, rows = arrays
    run = functools.partial(_run_backward, static)
    rounded = _rounded(images, matrices, rows)
    return tuple(by_platform(run, static[2], images, gradient, *rounded))


_attention.defvjp(_attention_forward, _attention_backward)


def _rounded(images: Array, matrices: Array, rows: Array) -> tuple[Array, Array]:
    rounded = rows.astype(images.dtype).astype(jnp.float32)
    return matrices.astype(images.dtype), rounded.at[_SHORTCUT].set(rows[_SHORTCUT])


def _run_forward(
    static: _Static, interpret: Interpret, images: Array, matrices: Array, rows: Array
) -> Array:
    number = images.shape[0]
    images = whole_sublanes(images)
    steps = live_taps(images.shape, *static[:2])
    maps, whole, buffer = _specs(images)
    arguments = (images.transpose(MAPS_FIRST), matrices, rows)
    out = pl.pallas_call(
        functools.partial(_forward_kernel, steps=steps),
        grid=(images.shape[0] // block(images.shape),),
        in_specs=[maps, whole(matrices), whole(rows)],
        out_specs=maps,
        out_shape=result_type(arguments[0].shape, images.dtype, *arguments),
        scratch_shapes=[buffer(images.dtype), *[buffer(jnp.float32)] * 2],
        compiler_params=compiler_params(images, len(steps)),
        cost_estimate=cost(images, steps, maps=2, products=3, once=(matrices, rows)),
        interpret=interpret,
        name="attention_forward",
    )(*arguments)
    return out.transpose(BATCH_FIRST)[:number]


def _run_backward(
    static: _Static,
    interpret: Interpret,
    images: Array,
    gradient: Array,
    matrices: Array,
    rows: Array,
) -> tuple[Array, ...]:
    number = images.shape[0]
    images, gradient = whole_sublanes(images), whole_sublanes(gradient)
    steps = live_taps(images.shape, *static[:2])
    maps, whole, buffer = _specs(images)
    arguments = (images.transpose(MAPS_FIRST), gradient.transpose(MAPS_FIRST), matrices, rows)
    sums_types = [result_type(a.shape, jnp.float32, *arguments) for a in (matrices, rows)]
    out, *sums = pl.pallas_call(
        functools.partial(_backward_kernel, steps=steps),
        grid=(images.shape[0] // block(images.shape),),
        in_specs=[maps, maps, whole(matrices), whole(rows)],
        out_specs=[maps, whole(matrices), whole(rows)],
        out_shape=[result_type(arguments[0].shape, images.dtype, *arguments), *sums_types],
        scratch_shapes=[buffer(images.dtype), *[buffer(jnp.float32)] * max(len(steps), 2)],
        compiler_params=compiler_params(images, len(steps)),
        cost_estimate=cost(images, steps, maps=3, products=9, once=(matrices, rows, *sums_types)),
        interpret=interpret,
        name="attention_backward",
    )(*arguments)
    return out.transpose(BATCH_FIRST)[:number], *sums


def _forward_kernel(
    images: Any, matrices: Any, rows: Any, out: Any, inner: Any, *chain: Any, steps: Any
) -> None:
    dtype = images.dtype
    _project_in(images, matrices, rows, inner)
    for channels in lane_blocks(images.shape[-1]):
        for number, step in enumerate(steps):
            source = chain[(number - 1) % 2] if number else inner
            _convolve(source, chain[number % 2], number, step, steps, rows, channels)
    gate = chain[(len(steps) - 1) % 2]

    def write(row: Any, _: None) -> None:
        gated = as_matrix(gate[row], dtype)
        scale = dot(gated, matrices[1], 1, 0) + rows[_GATE][None]
        product = (_matrix(inner, row, jnp.float32) * scale).astype(dtype)
        result = dot(product, matrices[2], 1, 0) + rows[_OUT][None]
        result += _matrix(images, row, jnp.float32) * rows[_SHORTCUT][None]
        out[row] = result.reshape(out.shape[1:]).astype(dtype)

    lax.fori_loop(0, images.shape[0], write, None)


def _backward_kernel(
    images: Any,
    gradient: Any,
    matrices: Any,
    rows: Any,
    images_gradient: Any,
    matrices_sum: Any,
    rows_sum: Any,
    inner: Any,
    *chain: Any,
    steps: Any,
) -> None:
    dtype = images.dtype
    height, shape = images.shape[0], images.shape[1:]

    @pl.when(pl.program_id(0) == 0)
    def _start() -> None:
        matrices_sum[...] = jnp.zeros(matrices_sum.shape, jnp.float32)
        rows_sum[...] = jnp.zeros(rows_sum.shape, jnp.float32)

    _project_in(images, matrices, rows, inner)
    last = len(steps) - 1
    for channels in lane_blocks(images.shape[-1]):
        for number, step in enumerate(steps):
            source = chain[number - 1] if number else inner
            _convolve(source, chain[number], number, step, steps, rows, channels)

    def pull_through_gate(row: Any, _: None) -> None:
        of_output = _matrix(gradient, row, dtype)
        gated = as_matrix(chain[last][row], dtype)
        scale = dot(gated, matrices[1], 1, 0) + rows[_GATE][None]
        values = _matrix(inner, row, jnp.float32)
        matrices_sum[2] += dot((values * scale).astype(dtype), of_output, 0, 0)
        exact = _matrix(gradient, row, jnp.float32)
        rows_sum[_OUT] += jnp.sum(exact, axis=0)
        rows_sum[_SHORTCUT] += jnp.sum(exact * _matrix(images, row, jnp.float32), axis=0)
        of_product = dot(of_output, matrices[2], 1, 1)
        # The shortcut from u to the product waits where the result will be written.
        images_gradient[row] = (of_product * scale).reshape(shape).astype(dtype)
        of_scale = of_product * values
        rows_sum[_GATE] += jnp.sum(of_scale, axis=0)
        matrices_sum[1] += dot(gated, of_scale.astype(dtype), 0, 0)
        chain[last][row] = dot(of_scale.astype(dtype), matrices[1], 1, 1).reshape(shape)

    lax.fori_loop(0, height, pull_through_gate, None)

    for channels in lane_blocks(images.shape[-1]):
        for number in reversed(range(len(steps))):
            _pull_back(inner, chain, number, steps, rows, rows_sum, channels)

    def pull_through_project(row: Any, _: None) -> None:
        pixels = _matrix(images, row, dtype)
        slope = gelu_and_slope(dot(pixels, matrices[0], 1, 0) + rows[_IN][None])[1]
        of_inner = as_matrix(chain[-1][row], jnp.float32)
        of_inner += _matrix(images_gradient, row, jnp.float32)
        of_product = of_inner * slope
        rows_sum[_IN] += jnp.sum(of_product, axis=0)
        matrices_sum[0] += dot(pixels, of_product.astype(dtype), 0, 0)
        result = dot(of_product.astype(dtype), matrices[0], 1, 1)
        result += _matrix(gradient, row, jnp.float32) * rows[_SHORTCUT][None]
        images_gradient[row] = result.reshape(shape).astype(dtype)

    lax.fori_loop(0, height, pull_through_project, None)


def _project_in(images: Any, matrices: Any, rows: Any, inner: Any) -> None:
    def write(row: Any, _: None) -> None:
        values = gelu(dot(_matrix(images, row, images.dtype), matrices[0], 1, 0) + rows[_IN][None])
        inner[row] = values.reshape(inner.shape[1:]).astype(inner.dtype)

    lax.fori_loop(0, images.shape[0], write, None)


def _convolve(
    source: Any, target: Any, number: int, step: Any, steps: Any, rows: Any, channels: slice
) -> None:
    source, target = _lanes(source, channels), _lanes(target, channels)
    taps = rows[_FIRST_STEP + len(steps) :, channels]
    bias = rows[_FIRST_STEP + number, channels]
    convolve(load_rows(source), store_rows(target), step, taps, bias, shape=target.shape)


def _pull_back(
    inner: Any, chain: Any, number: int, steps: Any, rows: Any, rows_sum: Any, channels: slice
) -> None:
    """Replace a step's input by its gradient; the first step's is written to the last buffer."""
    step, first_tap = steps[number], _FIRST_STEP + len(steps)
    source = _lanes(chain[number - 1] if number else inner, channels)
    target = _lanes(chain[number - 1] if number else chain[-1], channels)
    taps_sums, bias_sum, _ = pull_back(
        load_rows(source),
        load_rows(_lanes(chain[number], channels)),
        store_rows(target),
        step,
        rows[first_tap:, channels],
        shape=target.shape,
    )
    rows_sum[_FIRST_STEP + number, channels] += bias_sum
    for tap, total in zip(step, taps_sums, strict=True):
        rows_sum[first_tap + tap.place, channels] += total


def _matrix(ref: Any, row: Any, dtype: Any) -> jax.Array:
    return as_matrix(ref[row].astype(jnp.float32), dtype)


def _lanes(ref: Any, channels: slice) -> Any:
    return ref.at[:, :, :, channels]


def _specs(images: Array) -> tuple[pl.BlockSpec, Any, Any]:
    """Return the blocks of maps, a function to those of whole arrays, and one to buffers."""
    _, height, width, channels = images.shape
    size = (height, width, block(images.shape), channels)

    def whole(array: Array) -> pl.BlockSpec:
        return pl.BlockSpec(array.shape, lambda b: (0,) * array.ndim)

    def buffer(dtype: DTypeLike) -> Any:
        return pltpu.VMEM(size, jnp.dtype(dtype))

    return pl.BlockSpec(size, lambda b: (0, 0, b, 0)), whole, buffer
