"""A chain of depth-wise convolutions with biases as one TPU kernel, forward and backward.

    y_0 = x,    y_i = w_i *_{d_i} y_{i-1} + b_i,    output = y_n

Each w_i is a (kh, kw) depth-wise kernel, stride 1, zero padding that keeps the size: LSKA's cascade
is four of them (arXiv 2309.01439, eq. 4-5), LKA's two, the convolution of an FFN one. Run one by
one each step reads and writes the map; here the map is read once and written once, and the
backward kernel, which computes the y_i again, reads two maps and writes one.

The kernels were compiled for TPU v5e and compared in interpret mode; they never ran on a TPU.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lska_jax.ops.checks import Dilations, check_images, check_steps
from lska_jax.ops.pallas.blocks import (
    BATCH_FIRST,
    MAPS_FIRST,
    MOST_ROWS,
    MOST_TAPS,
    VMEM_BYTES,
    can_unroll,
    live_taps,
    vmem_bytes,
)
from lska_jax.ops.pallas.kernels import Interpret, run_backward, run_forward
from lska_jax.ops.pallas.placement import by_platform, on_own_images

_Sizes = tuple[tuple[int, int], ...]
_Static = tuple[_Sizes, tuple[int, ...], Interpret | None]


def depthwise_chain(
    images: Float[Array, "batch height width channels"],
    kernels: Sequence[Float[Array, "_ _ 1 channels"]],
    biases: Sequence[Float[Array, " channels"]] | None,
    *,
    dilations: Dilations,
    interpret: Interpret | None = None,
) -> Float[Array, "batch height width channels"]:
    """Convolve every channel with a chain of kernels, keeping the size.

    Kernels and biases are rounded to the dtype of ``images``; sums, and the maps between the steps,
    are float32, where separate bfloat16 operations would round after every step. In a program for
    several devices, trace under ``jax.set_mesh(mesh)`` (the batch is split over all its axes) or
    call inside ``jax.shard_map``, off TPU with ``check_vma=False``; see ``placement``.

    Args:
      images: (B, H, W, C), float32 or bfloat16.
      kernels: (kh, kw, 1, C) each, kh and kw odd.
      biases: (C,) each, or None for none.
      dilations: distance between taps in pixels, along both axes, one a kernel.
      interpret: compute with JAX operations instead of a TPU kernel; None does so wherever the
        program is compiled for something other than TPU.

    Returns:
      (B, H, W, C) in the dtype of ``images``.

    Raises:
      ValueError: images that are empty or of another rank or dtype, kernels, biases and dilations
        that do not belong together or to them, or maps too large for a TPU core's memory (see
        ``fits``).
    """
    sizes, dilations = check_chain(images, kernels, biases, dilations)
    needed = max(vmem_bytes(images.shape, images.dtype, steps=len(sizes)))
    if needed > VMEM_BYTES:
        raise ValueError(
            f"images {images.shape} {images.dtype} in a chain of {len(sizes)} need "
            f"{needed / 2**20:.0f} MiB of a TPU core's memory, {VMEM_BYTES / 2**20:.0f} MiB are "
            "allowed; use smaller maps, fewer steps at once or another implementation."
        )
    channels = images.shape[-1]
    taps = jnp.concatenate([k.reshape(-1, channels).astype(jnp.float32) for k in kernels])
    if biases is None:
        rows = jnp.zeros((len(kernels), channels), jnp.float32)
    else:
        rows = jnp.stack([b.astype(jnp.float32) for b in biases])
    run = functools.partial(_chain, (sizes, dilations, interpret))
    return on_own_images(run, images, taps, rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chain(static: _Static, images: Array, taps: Array, biases: Array) -> Array:
    (out,) = _forward(static)(images, *_rounded(images, taps, biases))
    return out


def _chain_forward(
    static: _Static, images: Array, taps: Array, biases: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _chain(static, images, taps, biases), (images, taps, biases)


def _chain_backward(
    static: _Static, residuals: tuple[Array, Array, Array], gradient: Array
) -> tuple[Array, ...]:
    images, taps, biases = residuals
    return tuple(_backward(static)(images, gradient, *_rounded(images, taps, biases)))


_chain.defvjp(_chain_forward, _chain_backward)


def _rounded(images: Array, *parameters: Array) -> tuple[Array, ...]:
    return tuple(p.astype(images.dtype).astype(jnp.float32) for p in parameters)


@functools.cache
def _forward(static: _Static) -> Any:
    """Return (images, taps, biases) -> (out,) that vmap can split."""

    def run(images: Array, taps: Array, biases: Array) -> tuple[Array, ...]:
        def kernel(interpret: Interpret, images: Array, taps: Array, biases: Array) -> Array:
            steps = live_taps(images.shape, *static[:2])
            out = run_forward(
                images.transpose(MAPS_FIRST), taps, biases, steps=steps, interpret=interpret
            )
            return out.transpose(BATCH_FIRST)

        return (by_platform(kernel, static[2], images, taps, biases),)

    return _mappable(run)


@functools.cache
def _backward(static: _Static) -> Any:
    """Return (images, gradient, taps, biases) -> their three gradients, as ``_forward``."""

    def run(images: Array, gradient: Array, taps: Array, biases: Array) -> tuple[Array, ...]:
        def kernel(
            interpret: Interpret, images: Array, gradient: Array, taps: Array, biases: Array
        ) -> tuple[Array, ...]:
            steps = live_taps(images.shape, *static[:2])
            maps = (images.transpose(MAPS_FIRST), gradient.transpose(MAPS_FIRST))
            out, *sums = run_backward(*maps, taps, biases, steps=steps, interpret=interpret)
            return out.transpose(BATCH_FIRST), *sums

        return by_platform(kernel, static[2], images, gradient, taps, biases)

    return _mappable(run)


def _mappable(run: Any) -> Any:
    """Let ``jax.vmap`` fold its axis into the channels, which never mix."""
    mapped = jax.custom_batching.custom_vmap(run)

    @mapped.def_vmap
    def rule(axis_size: int, is_batched: Sequence[bool], *arrays: Array) -> Any:
        def fold(array: Array, batched: bool) -> Array:
            if not batched:
                array = jnp.broadcast_to(array, (axis_size, *array.shape))
            array = jnp.moveaxis(array, 0, -2)
            return array.reshape(*array.shape[:-2], -1)

        def unfold(array: Array) -> Array:
            array = array.reshape(*array.shape[:-1], axis_size, -1)
            return jnp.moveaxis(array, -2, 0)

        results = mapped(*map(fold, arrays, is_batched))
        return jax.tree.map(unfold, results), jax.tree.map(lambda _: True, results)

    return mapped


def check_chain(
    images: Array,
    kernels: Sequence[Array],
    biases: Sequence[Array] | None,
    dilations: Dilations,
) -> tuple[_Sizes, tuple[int, ...]]:
    """Return the sizes of a chain's kernels, and its dilations as Python's ints.

    Raises:
      ValueError: kernels, biases and dilations that do not belong together or to the images, or
        images that are empty.
    """
    check_images(images)
    channels = images.shape[-1]
    if 0 in images.shape:
        raise ValueError(f"images must not be empty, got {images.shape}.")
    dilations = check_steps(kernels, biases, dilations, channels=channels)
    sizes = tuple((kernel.shape[0], kernel.shape[1]) for kernel in kernels)
    for size in sizes:
        if not can_unroll(size):
            raise ValueError(
                f"A kernel may have up to {MOST_TAPS} taps in up to {MOST_ROWS} rows in the TPU "
                f"kernels, got {size[0]} x {size[1]}; use another implementation."
            )
    return sizes, dilations
