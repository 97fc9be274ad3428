"""One depth-wise convolution as a chain of length one, as ``depthwise_conv`` calls it."""

from collections.abc import Sequence

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from lska_jax.ops.pallas import blocks
from lska_jax.ops.pallas.chain import depthwise_chain


def convolve(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolve; arguments and result are those of ``depthwise_conv``."""
    return depthwise_chain(images, [kernel], None, dilations=(dilation,))


def weight_gradient(images: Array, kernel: Array, dilation: int, output_gradient: Array) -> Array:
    """Return the gradient of the kernel."""
    _, pull_back = jax.vjp(lambda w: convolve(images, w, dilation), kernel)
    return pull_back(output_gradient)[0]


def fits(images_shape: Sequence[int], kernel_shape: Sequence[int], dtype: DTypeLike) -> bool:
    """Tell whether the TPU kernel takes such images and kernels."""
    taps = kernel_shape[0] * kernel_shape[1]
    return blocks.fits(images_shape, dtype, steps=1, taps=taps)
