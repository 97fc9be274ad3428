"""Fit the kernels of one cascade to those of another: crop, pad, rank 1, least squares.

Kernels are float64, (taps, C) for a 1-D and (taps, taps, C) for a 2-D step. The effective kernel of
a cascade is the local kernel convolved with the dilated one, its taps d pixels apart: k wide.
"""

import itertools

import numpy as np

from lska_jax.ops.kernel_spec import KernelSpec

_ITERATIONS = 40
# Relative to the largest diagonal entry: keeps channels solvable whose kernel is zero.
_RIDGE = 1e-12


def resize_centred(kernel: np.ndarray, size: int) -> np.ndarray:
    """Cut the centre out of a kernel, or surround it with zeros; all axes but the last."""
    for axis in range(kernel.ndim - 1):
        missing = size - kernel.shape[axis]
        if missing >= 0:
            widths = [(0, 0)] * kernel.ndim
            widths[axis] = (missing // 2, missing // 2)
            kernel = np.pad(kernel, widths)
        else:
            start = -missing // 2
            kernel = np.take(kernel, range(start, start + size), axis=axis)
    return kernel


def effective_kernel(local: np.ndarray, dilated: np.ndarray, dilation: int) -> np.ndarray:
    """Return local convolved with dilated: extent d (n - 1) + local size along each axis."""
    dims = local.ndim - 1
    reach = dilation * (dilated.shape[0] - 1)
    result = np.zeros((*(reach + size for size in local.shape[:-1]), local.shape[-1]))
    for tap in itertools.product(range(dilated.shape[0]), repeat=dims):
        place = tuple(
            slice(dilation * index, dilation * index + size)
            for index, size in zip(tap, local.shape, strict=False)
        )
        result[place] += local * dilated[tap]
    return result


def best_rank_1(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertical and horizontal kernels (n, C) whose product is nearest to (n, n, C).

    By the singular value decomposition of each channel (Eckart and Young); the singular value is
    shared evenly.
    """
    left, values, right = np.linalg.svd(np.moveaxis(kernel, -1, 0))
    scale = np.sqrt(values[:, :1])
    vertical, horizontal = left[:, :, 0] * scale, right[:, 0, :] * scale
    # The sign of a pair is free; a horizontal kernel with a positive sum is the readable one.
    sign = np.where(horizontal.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    return (vertical * sign).T, (horizontal * sign).T


def fit_cascade(effective: np.ndarray, spec: KernelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the local and dilated kernels whose effective kernel is nearest to a given one.

    Least squares by turns for one with the other fixed, from the best rank-1 start: the nearest
    effective kernel, up to a local minimum.

    Args:
      effective: (k, C) or (k, k, C), of any k.
      spec: sizes of the cascade to fit.
    """
    dims = effective.ndim - 1
    reach = (effective.shape[0] - 1) // 2 + spec.dilation - 1
    # Taps that touch nothing of the given kernel would only be fitted to zeros.
    half = min((spec.dilated_size - 1) // 2, reach // spec.dilation)
    near = 2 * half + 1
    width = spec.dilation * (near - 1) + spec.local_size
    target = resize_centred(effective, width).reshape(-1, effective.shape[-1]).T
    local_taps = list(itertools.product(range(spec.local_size), repeat=dims))
    dilated_taps = list(itertools.product(range(near), repeat=dims))
    index = np.array(
        [
            [
                np.ravel_multi_index(
                    tuple(p + spec.dilation * q for p, q in zip(a, b, strict=True)), (width,) * dims
                )
                for b in dilated_taps
            ]
            for a in local_taps
        ]
    )
    left, values, right = np.linalg.svd(target[:, index], full_matrices=False)
    scale = np.sqrt(values[:, :1])
    local, dilated = left[:, :, 0] * scale, right[:, 0, :] * scale
    for _ in range(_ITERATIONS):
        local = _solve(dilated, index, target)
        dilated = _solve(local, index.T, target)
    balance = np.sqrt(
        (np.linalg.norm(dilated, axis=1) + 1e-30) / (np.linalg.norm(local, axis=1) + 1e-30)
    )[:, None]
    shape = (spec.local_size,) * dims, (near,) * dims
    fitted = (
        (local * balance).T.reshape(*shape[0], -1),
        (dilated / balance).T.reshape(*shape[1], -1),
    )
    return fitted[0], resize_centred(fitted[1], spec.dilated_size)


def _solve(fixed: np.ndarray, index: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the free taps (C, P) of: sum over p, q of free[p] fixed[q] at index[p, q] ~ target."""
    free_count, fixed_count = index.shape
    design = np.zeros((*target.shape, free_count))
    for q in range(fixed_count):
        design[:, index[:, q], np.arange(free_count)] += fixed[:, q, None]
    normal = np.einsum("cep,ceq->cpq", design, design)
    largest = np.max(np.diagonal(normal, axis1=1, axis2=2), axis=1)
    ridge = (_RIDGE * largest + 1e-30)[:, None, None] * np.eye(free_count)
    right_side = np.einsum("cep,ce->cp", design, target)
    return np.linalg.solve(normal + ridge, right_side[..., None])[..., 0]
