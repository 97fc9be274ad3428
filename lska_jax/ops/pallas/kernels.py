"""The two kernels of a chain of depth-wise convolutions, on blocks of (H, W, B, C).

Every value that a loop handles is one row (W, batch, channels) in float32. Shifts along the row
are slices of its untiled first dimension, shifts along the columns are other rows: neither moves
data between lanes or sublanes. Rows that share their live taps are one loop, so padding is never
read, multiplied or stored.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

from lska_jax.ops.broadcast import along_channels
from lska_jax.ops.pallas.blocks import (
    LANES,
    SPILL_BYTES,
    SUBLANES,
    Block,
    Tap,
    choose_block,
    vmem_bytes,
)
from lska_jax.ops.platform import varying_axes

# Compute with JAX operations instead of compiling for TPU; the parameters are those of Pallas's
# interpreter that minds a TPU's memories.
Interpret = bool | pltpu.InterpretParams
_Load = Callable[[Any], jax.Array]
_Store = Callable[[Any, jax.Array], None]
_Steps = tuple[tuple[Tap, ...], ...]


def run_forward(
    images: jax.Array, taps: jax.Array, biases: jax.Array, *, steps: _Steps, interpret: Interpret
) -> jax.Array:
    """Run a chain, reading and writing the map once.

    Args:
      images: (H, W, B, C), float32 or bfloat16.
      taps: (T, C) float32, the kernels of all steps one below the other.
      biases: (S, C) float32, one row a step.
      steps: from ``live_taps``.
      interpret: compute with JAX operations instead of compiling for TPU.

    Returns:
      (H, W, B, C) in the dtype of ``images``.
    """
    height, width, batch, channels = images.shape
    shape = (batch, height, width, channels)
    block = choose_block(shape)
    maps, rows = _specs(block, images)
    scratch = pltpu.VMEM((height, width, block.batch, block.channels), jnp.float32)
    return pl.pallas_call(
        functools.partial(_forward_kernel, steps=steps),
        grid=block.grid,
        in_specs=[maps, rows(taps), rows(biases)],
        out_specs=maps,
        out_shape=result_type(images.shape, images.dtype, images),
        scratch_shapes=[scratch] * min(len(steps) - 1, 2),
        compiler_params=_compiler_params(
            vmem_bytes(shape, images.dtype, steps=len(steps))[0], is_reduction=False
        ),
        cost_estimate=_cost((images, images), steps, operations_a_tap=2, once=(taps, biases)),
        interpret=interpret,
        name="depthwise_chain_forward",
    )(images, taps, biases)


def run_backward(
    images: jax.Array,
    gradient: jax.Array,
    taps: jax.Array,
    biases: jax.Array,
    *,
    steps: _Steps,
    interpret: Interpret,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Run a chain's gradients, reading images and gradient once and writing one map.

    Args:
      images: (H, W, B, C), float32 or bfloat16.
      gradient: of the output, as ``images``.
      taps: (T, C) float32.
      biases: (S, C) float32.
      steps: from ``live_taps``.
      interpret: compute with JAX operations instead of compiling for TPU.

    Returns:
      Gradients of images (H, W, B, C) in their dtype, taps (T, C) and biases (S, C) in float32.
    """
    height, width, batch, channels = images.shape
    shape = (batch, height, width, channels)
    block = choose_block(shape)
    maps, rows = _specs(block, images)
    scratch = pltpu.VMEM((height, width, block.batch, block.channels), jnp.float32)
    everything = (images, gradient, taps, biases)
    return pl.pallas_call(
        functools.partial(_backward_kernel, steps=steps, ragged_batch=batch * block.is_ragged),
        grid=block.grid,
        in_specs=[maps, maps, rows(taps), rows(biases)],
        out_specs=[maps, rows(taps), rows(biases)],
        out_shape=[
            result_type(images.shape, images.dtype, *everything),
            result_type(taps.shape, jnp.float32, *everything),
            result_type(biases.shape, jnp.float32, *everything),
        ],
        scratch_shapes=[scratch] * (len(steps) - 1),
        compiler_params=_compiler_params(
            vmem_bytes(shape, images.dtype, steps=len(steps))[1], is_reduction=True
        ),
        cost_estimate=_cost(
            (images, images, images), steps, operations_a_tap=6, once=2 * (taps, biases)
        ),
        interpret=interpret,
        name="depthwise_chain_backward",
    )(*everything)


def _forward_kernel(images: Any, taps: Any, biases: Any, out: Any, *scratch: Any, steps: _Steps):
    source = images
    for number, step in enumerate(steps):
        target = out if number == len(steps) - 1 else scratch[number % 2]
        convolve(
            load_rows(source), store_rows(target), step, taps, biases[number], shape=images.shape
        )
        source = target


def _backward_kernel(
    images: Any,
    gradient: Any,
    taps: Any,
    biases: Any,
    images_gradient: Any,
    taps_gradient: Any,
    biases_gradient: Any,
    *scratch: Any,
    steps: _Steps,
    ragged_batch: int,
):
    @pl.when(pl.program_id(1) == 0)
    def _start():
        taps_gradient[...] = jnp.zeros(taps_gradient.shape, jnp.float32)
        biases_gradient[...] = jnp.zeros(biases_gradient.shape, jnp.float32)

    load_images, load_gradient = load_rows(images), load_rows(gradient)
    if ragged_batch:
        # Behind the last image lies anything; it must not reach the sums over the batch.
        is_inside = (
            pl.program_id(1) * images.shape[2]
            + lax.broadcasted_iota(jnp.int32, images.shape[1:], 1)
            < ragged_batch
        )
        load_images = _masked(load_images, is_inside)
        load_gradient = _masked(load_gradient, is_inside)

    loads = [load_images, *map(load_rows, scratch)]
    for number, step in enumerate(steps[:-1]):
        convolve(
            loads[number],
            store_rows(scratch[number]),
            step,
            taps,
            biases[number],
            shape=images.shape,
        )
    for number in reversed(range(len(steps))):
        # A step's gradient takes the place of the step's input, row by row.
        target = scratch[number - 1] if number else images_gradient
        sums, bias_sum, _ = pull_back(
            loads[number],
            load_gradient,
            store_rows(target),
            steps[number],
            taps,
            shape=images.shape,
        )
        for tap, total in zip(steps[number], sums, strict=True):
            taps_gradient[tap.place] += total
        biases_gradient[number] += bias_sum
        load_gradient = load_rows(target)


def convolve(
    load: _Load,
    store: _Store,
    step: Sequence[Tap],
    taps: Any,
    bias: jax.Array,
    *,
    shape: tuple[int, ...],
) -> None:
    """Compute one step's rows: bias + sum over taps of the shifted row times the tap.

    Args:
      load: returns a row (W, B, C) of the step's input in float32.
      store: takes the number and the values of every row of the output, each once.
      step: live taps.
      taps: (T, C), by the taps' places.
      bias: (C,).
      shape: of the block, (H, W, B, C).
    """
    for start, stop, live in _row_ranges(shape[0], step, direction=1):

        def compute_row(row: Any, _: None, live: Sequence[Sequence[Tap]] = live) -> None:
            total = jnp.broadcast_to(bias, shape[1:])
            for same_row in live:
                values = _Shifted(load(row + same_row[0].row), same_row)
                for tap in same_row:
                    shifted = values.shifted(tap.column)
                    total += shifted * along_channels(taps[tap.place], shifted)
            store(row, total)

        lax.fori_loop(start, stop, compute_row, None)


def pull_back(
    load_input: _Load,
    load_gradient: _Load,
    store: _Store,
    step: Sequence[Tap],
    taps: Any,
    *,
    shape: tuple[int, ...],
) -> tuple[list[jax.Array], jax.Array, jax.Array]:
    """Compute one step's input gradient and its sums.

    Args:
      load_input: returns a row of the step's input in float32.
      load_gradient: returns a row of the gradient of its output in float32.
      store: takes every row of the input gradient, in order; the input's row is not read again.
      step: live taps.
      taps: (T, C), by the taps' places.
      shape: of the block, (H, W, B, C).

    Returns:
      The gradient (C,) of every live tap, that of the bias, and the sum of the input gradient.
    """
    height, width, batch, channels = shape
    size = SUBLANES if batch % SUBLANES == 0 else batch
    zeros = jnp.zeros((size, channels), jnp.float32)
    carry = {tap: zeros for tap in step}, zeros, zeros

    def fold(product: jax.Array) -> jax.Array:
        return jnp.sum(product.reshape(width * batch // size, size, channels), axis=0)

    # The output pixel that reads an input pixel through a tap lies on the tap's other side.
    for start, stop, live in _row_ranges(height, step, direction=-1):

        def compute_row(row: Any, carry: Any, live: Sequence[Sequence[Tap]] = live) -> Any:
            sums, bias_sum, input_sum = carry
            values = load_input(row)
            total = jnp.zeros(shape[1:], jnp.float32)
            for same_row in live:
                gradient = load_gradient(row - same_row[0].row)
                shifts = _Shifted(gradient, same_row)
                for tap in same_row:
                    shifted = shifts.shifted(-tap.column)
                    total += shifted * along_channels(taps[tap.place], shifted)
                    sums = {**sums, tap: sums[tap] + fold(values * shifted)}
                if same_row[0].row == 0:
                    bias_sum = bias_sum + fold(gradient)
            store(row, total)
            return sums, bias_sum, input_sum + fold(total)

        carry = lax.fori_loop(start, stop, compute_row, carry)
    sums, bias_sum, input_sum = carry
    return (
        [jnp.sum(sums[tap], axis=0) for tap in step],
        jnp.sum(bias_sum, axis=0),
        jnp.sum(input_sum, axis=0),
    )


class _Shifted:
    """A row with zeros on both sides, to be read at any of a step's shifts."""

    def __init__(self, row: jax.Array, taps: Sequence[Tap]):
        self._reach = max(abs(tap.column) for tap in taps)
        self._width = row.shape[0]
        zeros = jnp.zeros((self._reach, *row.shape[1:]), row.dtype)
        self._padded = jnp.concatenate([zeros, row, zeros]) if self._reach else row

    def shifted(self, columns: int) -> jax.Array:
        start = self._reach + columns
        return self._padded[start : start + self._width]


def _row_ranges(
    height: int, step: Sequence[Tap], *, direction: int
) -> Iterator[tuple[int, int, list[list[Tap]]]]:
    """Yield (first row, row behind the last, live taps by source row) where those are the same."""
    by_row: dict[int, list[Tap]] = {}
    for tap in step:
        by_row.setdefault(tap.row, []).append(tap)

    def live(row: int) -> list[list[Tap]]:
        return [taps for r, taps in by_row.items() if 0 <= row + direction * r < height]

    start = 0
    for row in range(1, height + 1):
        if row == height or live(row) != live(start):
            yield start, row, live(start)
            start = row


def load_rows(ref: Any) -> _Load:
    """Return a function that reads a row of a block as float32."""
    return lambda row: ref[row].astype(jnp.float32)


def store_rows(ref: Any) -> _Store:
    """Return a function that writes a row of a block in its dtype."""

    def store(row: Any, values: jax.Array) -> None:
        ref[row] = values.astype(ref.dtype)

    return store


def _masked(load: _Load, is_inside: jax.Array) -> _Load:
    return lambda row: jnp.where(is_inside, load(row), 0.0)


def _specs(
    block: Block, images: jax.Array
) -> tuple[pl.BlockSpec, Callable[[jax.Array], pl.BlockSpec]]:
    """Return the blocks of maps, and a function to those of (rows, C) arrays."""
    height, width = images.shape[:2]
    maps = pl.BlockSpec((height, width, block.batch, block.channels), lambda c, b: (0, 0, b, c))

    def rows(array: jax.Array) -> pl.BlockSpec:
        return pl.BlockSpec((array.shape[0], block.channels), lambda c, b: (0, c))

    return maps, rows


def result_type(
    shape: tuple[int, ...], dtype: DTypeLike, *sources: jax.Array
) -> jax.ShapeDtypeStruct:
    """Return the type of a result; under shard_map it varies wherever one of its sources does."""
    kind = jax.sharding.ManualAxisType(varying=frozenset[Any]().union(*map(varying_axes, sources)))
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind)


def size_in_bytes(*arrays: Any) -> int:
    """Return the bytes of arrays, or of their types, for a cost estimate."""
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


def _compiler_params(kernel_bytes: int, *, is_reduction: bool) -> pltpu.CompilerParams:
    return pltpu.CompilerParams(
        dimension_semantics=("parallel", "arbitrary" if is_reduction else "parallel"),
        vmem_limit_bytes=kernel_bytes + SPILL_BYTES,
    )


def _cost(
    moved: Sequence[jax.Array],
    steps: _Steps,
    *,
    operations_a_tap: int,
    once: Sequence[jax.Array],
) -> pl.CostEstimate:
    # As XLA counts the maps it moves itself: channels padded to whole lanes.
    channels = moved[0].shape[-1]
    lanes = -(-channels // LANES) * LANES
    return pl.CostEstimate(
        flops=operations_a_tap * sum(len(step) for step in steps) * moved[0].size,
        transcendentals=0,
        bytes_accessed=size_in_bytes(*once)
        + sum(array.size // channels * lanes * array.dtype.itemsize for array in moved),
    )
