"""1x1 convolution: a matrix product over channels, laid out as each platform likes it.

    y[b, i, j, :] = x[b, i, j, :] W

One matrix (B H W, C) and a product over four axes are the same numbers and not the same speed. On
CPU the weight gradient of the first runs several times as fast, and its reshape keeps XLA from
merging neighbouring layers into one slow fusion. On TPU XLA keeps maps as (H, W, B, C), and the
reshape makes it copy every map into another order and back: most of what a train step of a VAN
moved (docs/performance.md).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.ops.checks import check_dtype, check_parameter
from lska_jax.ops.platform import explicit_spec_of, target_platform, vary_alike
from lska_jax.ops.processor import multiplies_bfloat16
from lska_jax.ops.reverse_mode import reverse_mode_only


@reverse_mode_only
def pointwise_conv(
    images: Float[Array, "*pixels in_channels"],
    kernel: Float[Array, "in_channels channels"],
    *,
    dtype: DTypeLike | None = None,
) -> Float[Array, "*pixels channels"]:
    """Mix channels pixel by pixel, or token by token.

    Args:
      images: (B, H, W, in_channels) or (B, N, in_channels), float32 or bfloat16.
      kernel: (in_channels, C), cast to the dtype of ``images``; its gradient keeps its own dtype.
      dtype: of the result; None is that of ``images``. Sums are float32, and float32 keeps them so.

    Returns:
      (B, H, W, C) or (B, N, C) in that dtype. Products of float32 follow
      ``jax_default_matmul_precision``, which on TPU and GPU is below float32. Gradients are reverse
      mode.

    Raises:
      ValueError: images of another rank or dtype, or a kernel of another shape or not
        floating-point.
    """
    if images.ndim < 2:
        raise ValueError(f"images must have shape (B, ..., in_channels), got {images.shape}.")
    check_dtype("images", images)
    if kernel.ndim != 2:
        raise ValueError(f"kernel must have shape (in_channels, C), got {kernel.shape}.")
    check_parameter("kernel", kernel, (images.shape[-1], kernel.shape[1]))
    return _convolve(*vary_alike((images, kernel)), jnp.dtype(dtype or images.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(images: Array, kernel: Array, dtype: DTypeLike) -> Array:
    return _mix(images, kernel.astype(images.dtype), dtype)


def _forward(images: Array, kernel: Array, dtype: DTypeLike) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(images, kernel, dtype), (images, kernel)


def _backward(
    dtype: DTypeLike, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = residuals
    # Of a wider result it is what came back through one rounding, or is rounded here.
    gradient = gradient.astype(images.dtype)
    kernel_of_images = kernel.astype(images.dtype)
    of_images = _mix(gradient, kernel_of_images, images.dtype, is_transposed=True)
    of_kernel = kernel_gradient(images, gradient, explicit_spec_of(kernel))
    return of_images, of_kernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _mix(images: Array, kernel: Array, dtype: DTypeLike, *, is_transposed: bool = False) -> Array:
    """Return images @ kernel, or images @ kernel.T."""
    if target_platform() == "cpu":
        rows = _multiply(_pixels(images), kernel, dtype, is_transposed=is_transposed)
        return rows.reshape(*images.shape[:-1], rows.shape[-1])
    kernel = kernel.T if is_transposed else kernel
    wanted = None if dtype == images.dtype else dtype
    last = (((images.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(images, kernel, last, preferred_element_type=wanted)


def _multiply(rows: Array, kernel: Array, dtype: DTypeLike, *, is_transposed: bool) -> Array:
    # XLA's own product of bfloat16 widens both sides first. With a float32 result YNNPACK takes the
    # processor's instructions, but for a kernel that is transposed ahead of it.
    if rows.dtype == jnp.bfloat16 and not multiplies_bfloat16():
        rows, kernel = rows.astype(jnp.float32), kernel.astype(jnp.float32)
    product = lax.dot_general(
        rows,
        kernel,
        (((1,), (int(is_transposed),)), ((), ())),
        preferred_element_type=jnp.float32,
    )
    return product.astype(dtype)


def kernel_gradient(images: Array, gradient: Array, spec: PartitionSpec | None = None) -> Array:
    """Return images^T gradient, (in_channels, C), summed over pixels in float32.

    Args:
      images: (..., in_channels).
      gradient: (..., C), of the product of ``images`` and a kernel, in their dtype.
      spec: how the result is split on a mesh with axes of type Explicit, None without.
    """
    if target_platform() != "cpu":
        return _sum_products(images, gradient, spec)
    images, gradient = _pixels(images), _pixels(gradient)
    if spec is not None or images.shape[1] <= gradient.shape[1]:
        return _sum_products(images, gradient, spec)
    # XLA's CPU backend takes up to three times as long where the first of both is the wider one.
    # The barrier keeps it from turning the product around again.
    return lax.optimization_barrier(_sum_products(gradient, images, None)).T


def _sum_products(left: Array, right: Array, spec: PartitionSpec | None) -> Array:
    pixels = tuple(range(left.ndim - 1))
    return lax.dot_general(
        left,
        right,
        ((pixels, pixels), ((), ())),
        preferred_element_type=jnp.float32,
        out_sharding=spec,
    )


def _pixels(images: Array) -> Array:
    return images.reshape(-1, images.shape[-1])
