"""The convolutional feed-forward network of a VAN block as one TPU kernel, forward and backward.

    y = s . (W_2 gelu(K * (W_1 x + b_1) + b_k) + b_2)      (arXiv 2202.09741, section 3)

W_1 widens C channels to E = 4 C or 8 C, K is a 3x3 depth-wise kernel, W_2 narrows them again, s is
the layer scale. Run one by one, the widened maps are what a train step mostly moves. Here they
exist only as blocks of 128 channels in the core's memory: x is read once and y written once, and
the backward kernel, which computes the widened maps again, reads x and the gradient and writes one
map. That costs one matrix product more than keeping the widened map would.

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

from lska_jax.ops.pallas.blocks import (
    BATCH_FIRST,
    LANES,
    MAPS_FIRST,
    SPILL_BYTES,
    SUBLANES,
    VMEM_BYTES,
    live_taps,
)
from lska_jax.ops.pallas.kernels import (
    Interpret,
    convolve,
    load_rows,
    pull_back,
    result_type,
    size_in_bytes,
)
from lska_jax.ops.pallas.placement import by_platform, on_own_images
from lska_jax.ops.pallas.products import (
    as_matrix,
    dot,
    gelu,
    gelu_and_slope,
    images_of_a_block,
    whole_sublanes,
)
from lska_jax.ops.platform import images_of_a_device

_KERNEL_SIZE = (3, 3)


def conv_ffn(
    images: Float[Array, "batch height width channels"],
    expand: tuple[Float[Array, "channels hidden"], Float[Array, " hidden"]],
    depthwise: tuple[Float[Array, "3 3 1 hidden"], Float[Array, " hidden"]],
    project: tuple[Float[Array, "hidden channels"], Float[Array, " channels"]],
    *,
    scale: Float[Array, " channels"] | None = None,
    interpret: Interpret | None = None,
) -> Float[Array, "batch height width channels"]:
    """Apply 1x1, 3x3 depth-wise, GELU and 1x1 without writing the widened maps to memory.

    Kernels and biases are rounded to the dtype of ``images``, matrix products take inputs of that
    dtype and sum in float32, all between them is float32.

    Args:
      images: (B, H, W, C), float32 or bfloat16.
      expand: kernel (C, E) and bias (E,).
      depthwise: kernel (3, 3, 1, E) and bias (E,).
      project: kernel (E, C) and bias (C,).
      scale: layer scale (C,) of the result; it multiplies ``project``, so that it and its gradient
        cost no pass over the map. None is one.
      interpret: as in ``depthwise_chain``.

    Returns:
      (B, H, W, C) in the dtype of ``images``.

    Raises:
      ValueError: ``ffn_fits`` is false for these sizes.
    """
    hidden = expand[0].shape[1]
    if not ffn_fits(images.shape, images.dtype, hidden=hidden):
        raise ValueError(
            f"images {images.shape} {images.dtype} with {hidden} hidden channels do not fit the "
            f"fused FFN: hidden channels must be a multiple of {LANES}, and of a core's memory it "
            f"needs {_vmem_bytes(images.shape, images.dtype, hidden) >> 20} MiB where at most "
            f"{VMEM_BYTES >> 20} are allowed. Run the parts one by one."
        )
    taps = depthwise[0].reshape(9, hidden)
    # What does not mix channels: two biases and nine taps, in one array.
    rows = jnp.concatenate([expand[1][None], depthwise[1][None], taps]).astype(jnp.float32)
    factor = (
        jnp.ones(images.shape[-1:], jnp.float32) if scale is None else scale.astype(jnp.float32)
    )
    parameters = (
        expand[0].astype(jnp.float32),
        rows,
        factor[None] * project[0],
        (factor * project[1])[None],
    )
    return on_own_images(functools.partial(_ffn, interpret), images, *parameters)


def ffn_fits(shape: tuple[int, ...], dtype: DTypeLike, *, hidden: int) -> bool:
    """Tell whether the fused FFN takes images of a shape (B, H, W, C) and E hidden channels."""
    own = (images_of_a_device(shape[0]), *shape[1:])
    return hidden % LANES == 0 and _vmem_bytes(own, dtype, hidden) <= VMEM_BYTES


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ffn(interpret: Interpret | None, images: Array, *parameters: Array) -> Array:
    return by_platform(_run_forward, interpret, images, *_rounded(images, *parameters))


def _ffn_forward(interpret: Interpret | None, *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    return _ffn(interpret, *arrays), arrays


def _ffn_backward(
    interpret: Interpret | None, arrays: tuple[Array, ...], gradient: Array
) -> tuple[Array, ...]:
    images, *parameters = arrays
    rounded = _rounded(images, *parameters)
    return tuple(by_platform(_run_backward, interpret, images, gradient, *rounded))


_ffn.defvjp(_ffn_forward, _ffn_backward)


def _rounded(
    images: Array, expand: Array, rows: Array, project: Array, bias: Array
) -> tuple[Array, ...]:
    dtype = images.dtype
    rows, bias = (array.astype(dtype).astype(jnp.float32) for array in (rows, bias))
    return expand.astype(dtype), rows, project.astype(dtype), bias


def _run_forward(interpret: Interpret, images: Array, *parameters: Array) -> Array:
    expand, rows, _, _ = parameters
    number = images.shape[0]
    images = whole_sublanes(images)
    batch, height, width, channels = images.shape
    block = _block(images.shape)
    grid = (batch // block, rows.shape[1] // LANES)
    maps = pl.BlockSpec((height, width, block, channels), lambda b, e: (0, 0, b, 0))
    widened = pltpu.VMEM((height, width, block, LANES), jnp.float32)
    summed = pltpu.VMEM((height, width, block, channels), jnp.float32)
    arguments = (images.transpose(MAPS_FIRST), *parameters)
    out = pl.pallas_call(
        functools.partial(_forward_kernel, step=_step(images.shape)),
        grid=grid,
        in_specs=[maps, *_parameter_specs(*parameters)],
        out_specs=maps,
        out_shape=result_type(arguments[0].shape, images.dtype, *arguments),
        scratch_shapes=[widened, summed],
        compiler_params=_compiler_params(images.shape, images.dtype, rows.shape[1]),
        cost_estimate=_cost(images, parameters, maps=2, products=2),
        interpret=interpret,
        name="conv_ffn_forward",
    )(*arguments)
    return out.transpose(BATCH_FIRST)[:number]


def _run_backward(
    interpret: Interpret, images: Array, gradient: Array, *parameters: Array
) -> tuple[Array, ...]:
    expand, rows, project, bias = parameters
    number = images.shape[0]
    images, gradient = whole_sublanes(images), whole_sublanes(gradient)
    batch, height, width, channels = images.shape
    hidden = rows.shape[1]
    block, blocks = _block(images.shape), hidden // LANES
    maps = pl.BlockSpec((height, width, block, channels), lambda b, e: (0, 0, b, 0))
    widened = pltpu.VMEM((height, width, block, LANES), jnp.float32)
    summed = pltpu.VMEM((height, width, block, channels), jnp.float32)
    arguments = (images.transpose(MAPS_FIRST), gradient.transpose(MAPS_FIRST), *parameters)
    # Sums over the batch stay in memory for the whole run: one piece a block of hidden channels.
    sums = ((blocks, channels, LANES), (blocks, rows.shape[0], LANES), (blocks, LANES, channels))
    whole = [pl.BlockSpec(shape, lambda b, e: (0, 0, 0)) for shape in sums]
    sums_types = [result_type(shape, jnp.float32, *arguments) for shape in (*sums, bias.shape)]
    out, expand_sum, rows_sum, project_sum, bias_sum = pl.pallas_call(
        functools.partial(_backward_kernel, step=_step(images.shape)),
        grid=(batch // block, blocks),
        in_specs=[maps, maps, *_parameter_specs(*parameters)],
        out_specs=[maps, *whole, pl.BlockSpec(bias.shape, lambda b, e: (0, 0))],
        out_shape=[
            result_type(arguments[0].shape, images.dtype, *arguments),
            *sums_types,
        ],
        scratch_shapes=[widened, widened, summed],
        compiler_params=_compiler_params(images.shape, images.dtype, hidden),
        cost_estimate=_cost(images, parameters, maps=3, products=5, once=sums_types),
        interpret=interpret,
        name="conv_ffn_backward",
    )(*arguments)
    return (
        out.transpose(BATCH_FIRST)[:number],
        expand_sum.transpose(1, 0, 2).reshape(expand.shape),
        rows_sum.transpose(1, 0, 2).reshape(rows.shape),
        project_sum.reshape(project.shape),
        bias_sum,
    )


def _forward_kernel(
    images: Any,
    expand: Any,
    rows: Any,
    project: Any,
    bias: Any,
    out: Any,
    widened: Any,
    summed: Any,
    *,
    step: Any,
) -> None:
    height = images.shape[0]

    @pl.when(pl.program_id(1) == 0)
    def _start() -> None:
        def write(row: Any, _: None) -> None:
            summed[row] = jnp.broadcast_to(bias[0], summed.shape[1:])

        lax.fori_loop(0, height, write, None)

    _widen(images, expand, rows, widened)

    def narrow(row: Any, values: jax.Array) -> None:
        activated = as_matrix(gelu(values), images.dtype)
        summed[row] += dot(activated, project[...], 1, 0).reshape(summed.shape[1:])

    taps = rows[2:]
    convolve(load_rows(widened), narrow, step, taps, rows[1], shape=widened.shape)

    @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
    def _finish() -> None:
        def write(row: Any, _: None) -> None:
            out[row] = summed[row].astype(out.dtype)

        lax.fori_loop(0, height, write, None)


def _backward_kernel(
    images: Any,
    gradient: Any,
    expand: Any,
    rows: Any,
    project: Any,
    _: Any,
    images_gradient: Any,
    expand_sum: Any,
    rows_sum: Any,
    project_sum: Any,
    bias_sum: Any,
    widened: Any,
    pulled: Any,
    summed: Any,
    *,
    step: Any,
) -> None:
    height = images.shape[0]
    dtype = images.dtype
    block = pl.program_id(1)

    @pl.when((pl.program_id(0) == 0) & (block == 0))
    def _start_sums() -> None:
        for total in (expand_sum, rows_sum, project_sum, bias_sum):
            total[...] = jnp.zeros(total.shape, jnp.float32)

    @pl.when(block == 0)
    def _start() -> None:
        def write(row: Any, _: None) -> None:
            summed[row] = jnp.zeros(summed.shape[1:], jnp.float32)
            bias_sum[0] += jnp.sum(as_matrix(gradient[row].astype(jnp.float32), jnp.float32), 0)

        lax.fori_loop(0, height, write, None)

    _widen(images, expand, rows, widened)

    def pull_through_project(row: Any, values: jax.Array) -> None:
        of_output = as_matrix(gradient[row].astype(jnp.float32), dtype)
        activated, slope = gelu_and_slope(values)
        project_sum[block] += dot(as_matrix(activated, dtype), of_output, 0, 0)
        of_activated = dot(of_output, project[...], 1, 1).reshape(values.shape)
        pulled[row] = of_activated * slope

    taps = rows[2:]
    convolve(load_rows(widened), pull_through_project, step, taps, rows[1], shape=widened.shape)

    def pull_through_expand(row: Any, values: jax.Array) -> None:
        of_widened = as_matrix(values, dtype)
        pixels = as_matrix(images[row].astype(jnp.float32), dtype)
        expand_sum[block] += dot(pixels, of_widened, 0, 0)
        summed[row] += dot(of_widened, expand[...], 1, 1).reshape(summed.shape[1:])

    taps_sums, depthwise_bias_sum, widened_sum = pull_back(
        load_rows(widened),
        load_rows(pulled),
        pull_through_expand,
        step,
        taps,
        shape=widened.shape,
    )
    rows_sum[block, 0] += widened_sum
    rows_sum[block, 1] += depthwise_bias_sum
    for tap, total in zip(step, taps_sums, strict=True):
        rows_sum[block, 2 + tap.place] += total

    @pl.when(block == pl.num_programs(1) - 1)
    def _finish() -> None:
        def write(row: Any, _: None) -> None:
            images_gradient[row] = summed[row].astype(dtype)

        lax.fori_loop(0, height, write, None)


def _widen(images: Any, expand: Any, rows: Any, widened: Any) -> None:
    def write(row: Any, _: None) -> None:
        pixels = as_matrix(images[row].astype(jnp.float32), images.dtype)
        values = dot(pixels, expand[...], 1, 0) + rows[0][None]
        widened[row] = values.reshape(widened.shape[1:])

    lax.fori_loop(0, images.shape[0], write, None)


def _step(shape: tuple[int, ...]) -> Any:
    return live_taps(shape, [_KERNEL_SIZE], [1])[0]


def _block(shape: tuple[int, ...]) -> int:
    return images_of_a_block(shape, pixels=512)


def _vmem_bytes(shape: tuple[int, ...], dtype: DTypeLike, hidden: int) -> int:
    """Return the bytes that the backward kernel, the larger one, takes of a core's memory."""
    _, height, width, channels = shape
    padded = -(-channels // LANES) * LANES
    batch = -(-shape[0] // SUBLANES) * SUBLANES
    values = height * width * _block((batch, *shape[1:]))
    maps = values * padded * (2 * 3 * jnp.dtype(dtype).itemsize + 4)
    return maps + 2 * values * LANES * 4 + 4 * padded * (hidden + LANES) * 4


def _parameter_specs(expand: Array, rows: Array, project: Array, bias: Array) -> list[pl.BlockSpec]:
    return [
        pl.BlockSpec((expand.shape[0], LANES), lambda b, e: (0, e)),
        pl.BlockSpec((rows.shape[0], LANES), lambda b, e: (0, e)),
        pl.BlockSpec((LANES, project.shape[1]), lambda b, e: (e, 0)),
        pl.BlockSpec(bias.shape, lambda b, e: (0, 0)),
    ]


def _compiler_params(shape: tuple[int, ...], dtype: DTypeLike, hidden: int) -> pltpu.CompilerParams:
    return pltpu.CompilerParams(
        dimension_semantics=("arbitrary", "arbitrary"),
        vmem_limit_bytes=_vmem_bytes(shape, dtype, hidden) + SPILL_BYTES,
    )


def _cost(
    images: Array,
    parameters: Sequence[Array],
    *,
    maps: int,
    products: int,
    once: Sequence[jax.ShapeDtypeStruct] = (),
) -> pl.CostEstimate:
    channels, hidden = parameters[0].shape
    # Every block of images fetches the parameters of all hidden channels anew.
    fetched = images.shape[0] // _block(images.shape) * size_in_bytes(*parameters)
    pixels = images.size // channels
    lanes = -(-channels // LANES) * LANES
    return pl.CostEstimate(
        flops=2 * pixels * hidden * (products * channels + 9 * (products // 2)),
        transcendentals=pixels * hidden,
        bytes_accessed=maps * pixels * lanes * images.dtype.itemsize
        + fetched
        + size_in_bytes(*once),
    )
