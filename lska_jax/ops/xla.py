"""Depth-wise convolution as ``lax.conv_general_dilated``: the reference."""

import jax
from jax import lax
from jaxtyping import Array


def convolve(images: Array, kernel: Array, dilation: int) -> Array:
    """Convolve; arguments and result are those of ``depthwise_conv``."""
    kernel_height, kernel_width, _, channels = kernel.shape
    pad_rows = dilation * (kernel_height - 1) // 2
    pad_columns = dilation * (kernel_width - 1) // 2
    return lax.conv_general_dilated(
        images,
        kernel.astype(images.dtype),
        window_strides=(1, 1),
        padding=((pad_rows, pad_rows), (pad_columns, pad_columns)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        # Other precisions round float32 to bfloat16 on TPU, to tf32 on GPU.
        precision=lax.Precision.HIGHEST,
    )


def weight_gradient(images: Array, kernel: Array, dilation: int, output_gradient: Array) -> Array:
    """Return the gradient of the kernel."""
    _, pull_back = jax.vjp(lambda w: convolve(images, w, dilation), kernel)
    return pull_back(output_gradient)[0]
