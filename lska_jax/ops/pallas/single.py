"""One depth-wise convolution as ``depthwise_conv`` calls it.

On GPU that is a kernel of its own, otherwise the TPU's chain of length one. The GPU's is imported
where it is asked for: JAX has announced that it will remove Pallas's Triton backend.
"""

import math
from collections.abc import Sequence

import jax
from jax.typing import DTypeLike
from jaxtyping import Array

from lska_jax.ops.pallas import blocks, depthwise_chain
from lska_jax.ops.platform import target_platform


def convolve(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolve; arguments and result are those of ``depthwise_conv``."""
    if target_platform() == "gpu":
        from lska_jax.ops.pallas import gpu

        return gpu.depthwise_conv_on_gpu(images, kernel, dilation=dilation)
    return depthwise_chain(images, [kernel], None, dilations=(dilation,))


def weight_gradient(images: Array, kernel: Array, dilation: int, output_gradient: Array) -> Array:
    """Return the gradient of the kernel."""
    _, pull_back = jax.vjp(lambda w: convolve(images, w, dilation), kernel)
    return pull_back(output_gradient)[0]


def fits(images_shape: Sequence[int], kernel_shape: Sequence[int], dtype: DTypeLike) -> bool:
    """Tell whether the platform's kernel takes such images and kernels."""
    size = (kernel_shape[0], kernel_shape[1])
    if target_platform() == "gpu":
        from lska_jax.ops.pallas import gpu

        return math.prod(size) <= gpu.MOST_TAPS
    return blocks.fits(images_shape, dtype, kernel_sizes=[size])
