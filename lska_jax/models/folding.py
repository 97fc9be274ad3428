"""What folding for inference is made of: factors and shifts moved into the products beside them.

With fixed statistics BatchNorm is n = a x + c for each channel, a = scale / sqrt(var + epsilon) and
c = bias - mean a. A product, or a convolution without padding, that follows takes a and c into its
kernel and bias; one that stands in front does so with any padding. Everything is computed in
float64 and rounded once.
"""

from typing import Any

import jax
import numpy as np

from lska_jax.nn.layers import BatchNorm


def wide(variable: Any) -> np.ndarray:
    """Return a variable's array in float64."""
    return np.asarray(variable[...], np.float64)


def affine_of(norm: BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """Return a and c of a BatchNorm's n = a x + c, both (C,)."""
    scale = wide(norm.scale) / np.sqrt(wide(norm.var) + norm.epsilon)
    return scale, wide(norm.bias) - wide(norm.mean) * scale


def fold_into_input(layer: Any, scale: np.ndarray, shift: np.ndarray) -> None:
    """Change a layer with kernel (..., in, out) so that it does what it did to scale x + shift."""
    kernel = wide(layer.kernel)
    added = np.sum(shift[:, None] * kernel, axis=tuple(range(kernel.ndim - 1)))
    set_layer(layer, scale[:, None] * kernel, wide(layer.bias) + added)


def fold_into_output(layer: Any, scale: np.ndarray, shift: np.ndarray | float = 0.0) -> None:
    """Change a layer with kernel (..., out) so that it returns scale y + shift."""
    set_layer(layer, wide(layer.kernel) * scale, wide(layer.bias) * scale + shift)


def set_layer(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Give a layer another kernel and bias, rounded to float32."""
    layer.kernel.set_value(jax.device_put(kernel.astype(np.float32)))
    layer.bias.set_value(jax.device_put(bias.astype(np.float32)))
