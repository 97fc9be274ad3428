"""Depth-wise convolution along one axis as a product with a banded matrix, one for each channel.

    y[b, i, :, c] = T_c x[b, i, :, c],    T_c[j, j + d(t - (n-1)/2)] = w[t, c]

T_c is the (L, L) Toeplitz matrix of the channel's taps, zero padding included. It costs L / n times
the multiplications of the convolution, in the form that matrix units are made for; with a kernel
about as large as the map nothing is wasted. A 2-D kernel is the sum over its rows, each shifted.
"""

import functools
import operator

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from lska_jax.ops.platform import explicit_spec_of


def convolve(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolve; arguments and result are those of ``depthwise_conv``."""
    if kernel.shape[0] > kernel.shape[1]:
        return _transposed(convolve(_transposed(images), kernel.swapaxes(0, 1), dilation))
    terms = (
        _multiply(rows, _banded(kernel[row, :, 0], images.shape[2], dilation))
        for row, rows in _shifted_rows(images, kernel.shape[0], dilation)
    )
    return functools.reduce(operator.add, terms).astype(images.dtype)


def weight_gradient(images: Array, kernel: Array, dilation: int, output_gradient: Array) -> Array:
    """Return the gradient of the kernel: sums along the diagonals of the gradient of T_c."""
    if kernel.shape[0] > kernel.shape[1]:
        turned = kernel.swapaxes(0, 1)
        turned = weight_gradient(
            _transposed(images), turned, dilation, _transposed(output_gradient)
        )
        return turned.swapaxes(0, 1)
    gradient = jnp.zeros(kernel.shape, jnp.float32)
    sharding = explicit_spec_of(kernel)
    for row, rows in _shifted_rows(images, kernel.shape[0], dilation):
        matrices = jnp.einsum(
            "bhic,bhjc->cij",
            output_gradient,
            rows,
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
            out_sharding=None if sharding is None else P(sharding[3], None, None),
        )
        taps = _diagonal_sums(matrices, kernel.shape[1], dilation)
        gradient = gradient.at[row, :, 0].set(taps)
    return gradient.astype(kernel.dtype)


def _multiply(images: Array, matrices: Array) -> Array:
    return jnp.einsum(
        "cij,bhjc->bhic",
        matrices,
        images,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _banded(taps: Array, length: int, dilation: int) -> Array:
    """Return the (C, L, L) matrices of (n, C) taps."""
    tap, is_inside = _tap_of_each_entry(length, taps.shape[0], dilation)
    entries = jnp.where(is_inside[..., None], taps[tap], jnp.zeros((), taps.dtype))
    return jnp.moveaxis(entries, -1, 0)


def _diagonal_sums(matrices: Array, number_of_taps: int, dilation: int) -> Array:
    """Return (n, C): for each tap the sum of the entries of (C, L, L) that hold it."""
    tap, is_inside = _tap_of_each_entry(matrices.shape[-1], number_of_taps, dilation)
    entries = jnp.where(is_inside, matrices, 0.0).reshape(matrices.shape[0], -1)
    sums = jnp.zeros((number_of_taps, matrices.shape[0]), jnp.float32)
    return sums.at[tap.reshape(-1)].add(entries.T)


def _tap_of_each_entry(
    length: int, number_of_taps: int, dilation: int
) -> tuple[np.ndarray, np.ndarray]:
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    tap = distance // dilation + (number_of_taps - 1) // 2
    is_inside = (distance % dilation == 0) & (tap >= 0) & (tap < number_of_taps)
    return np.where(is_inside, tap, 0), is_inside


def _shifted_rows(images: Array, kernel_height: int, dilation: int) -> list[tuple[int, Array]]:
    """Return (row of the kernel, the images that it meets), for the rows that meet any."""
    height = images.shape[1]
    half = (kernel_height - 1) // 2
    reach = min(half, (height - 1) // dilation)
    pad = dilation * reach
    padded = jnp.pad(images, ((0, 0), (pad, pad), (0, 0), (0, 0))) if pad else images
    return [
        (half + step, lax.slice_in_dim(padded, start, start + height, axis=1))
        for step in range(-reach, reach + 1)
        for start in [dilation * (step + reach)]
    ]


def _transposed(images: Array) -> Array:
    return images.swapaxes(1, 2)
