"""What arrays an operation takes: errors that say what was given and what is allowed."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import jax.numpy as jnp
import numpy as np

from lska_jax.ops.plain_numbers import plain_int

# Of the steps of a chain, in pixels.
Dilations = Sequence[SupportsIndex] | np.ndarray


def check_images(images: Any) -> None:
    """Raise ValueError unless images are (B, H, W, C), float32 or bfloat16."""
    if images.ndim != 4:
        raise ValueError(f"images must have shape (B, H, W, C), got {images.shape}.")
    check_dtype("images", images)


def check_dtype(name: str, array: Any) -> None:
    """Raise ValueError unless an array is float32 or bfloat16."""
    if array.dtype not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"{name} must be float32 or bfloat16, got {array.dtype}; cast {name}.")


def check_kernel(kernel: Any, *, channels: Any, name: str = "kernel") -> None:
    """Raise ValueError unless a depth-wise kernel is (kh, kw, 1, C), odd and floating-point."""
    shape = kernel.shape
    if kernel.ndim != 4 or shape[2] != 1 or shape[3] != channels:
        raise ValueError(
            f"{name} must have shape (kh, kw, 1, C) with C = {channels}, the channels of the "
            f"images; got {shape}."
        )
    if shape[0] % 2 == 0 or shape[1] % 2 == 0:
        raise ValueError(f"{name} must have odd height and width to keep the size, got {shape}.")
    _check_floats(name, kernel)


def check_parameter(name: str, array: Any, shape: tuple[Any, ...]) -> None:
    """Raise ValueError unless a parameter has the shape and is floating-point."""
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}.")
    _check_floats(name, array)


def _check_floats(name: str, array: Any) -> None:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must hold floating-point values, got {array.dtype}; cast {name}.")


def check_dilation(dilation: Any, *, name: str = "dilation") -> int:
    """Return a dilation as Python's int; raise ValueError unless it is a whole number above 0."""
    try:
        pixels = plain_int(name, dilation)
    except TypeError:
        pixels = 0
    if pixels < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, got {dilation!r}.")
    return pixels


def check_steps(
    kernels: Sequence[Any], biases: Sequence[Any] | None, dilations: Dilations, *, channels: Any
) -> tuple[int, ...]:
    """Raise ValueError unless these are the steps of a chain of depth-wise convolutions.

    Args:
      kernels: (kh, kw, 1, C) each, of odd sizes.
      biases: (C,) each, or None for none.
      dilations: in pixels; a sequence or an array.
      channels: C.

    Returns:
      The dilations, as Python's ints.
    """
    number = len(kernels)
    if number == 0 or number != len(dilations) or (biases is not None and number != len(biases)):
        raise ValueError(
            f"kernels, biases and dilations must have one entry for each step; got {number}, "
            f"{'none' if biases is None else len(biases)} and {len(dilations)}."
        )
    for step in range(number):
        check_kernel(kernels[step], channels=channels, name=f"kernels[{step}]")
        if biases is not None:
            check_parameter(f"biases[{step}]", biases[step], (channels,))
    return tuple(
        check_dilation(dilation, name=f"dilations[{step}]")
        for step, dilation in enumerate(dilations)
    )
