"""Depth-wise convolution, one function over several formulations.

The kernels of this family are 1 x k, k x 1 and small k x k depth-wise convolutions, with or
without dilation, stride 1 and zero padding that keeps the size:

    y[b, i, j, c] = sum_{u, v} x[b, i + d(u - (kh-1)/2), j + d(v - (kw-1)/2), c] * w[u, v, c]

Formulations, equal up to float32 rounding in value and gradient for finite images:

- ``xla``: ``lax.conv_general_dilated`` with ``feature_group_count``, the reference.
- ``shift``: the sum of shifted slices, each times its tap.
- ``toeplitz``: a banded matrix for each channel. Its zeros too meet every pixel of a row or column,
  so that one infinity or NaN makes all of it NaN, where the others keep it under the taps.
- ``pallas``: a TPU kernel that holds the map in on-chip memory, or a GPU kernel that reads it from
  the caches; elsewhere that of TPU is interpreted.

With odd kernels and symmetric padding the gradient of the images is the same operation with the
flipped kernel, so every formulation serves it; that of the kernel has a form of its own in each.
"""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.ops import shift, toeplitz, xla
from lska_jax.ops.checks import check_dilation, check_images, check_kernel
from lska_jax.ops.formulations import NAMES, Formulations, Site, choose, parse
from lska_jax.ops.pallas import single
from lska_jax.ops.platform import can_place_kernels, target_platform, vary_alike
from lska_jax.ops.reverse_mode import reverse_mode_only

_MODULES: dict[str, ModuleType] = {
    "xla": xla,
    "shift": shift,
    "toeplitz": toeplitz,
    "pallas": single,
}


@reverse_mode_only
def depthwise_conv(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width 1 channels"],
    *,
    dilation: SupportsIndex = 1,
    implementation: str | Sequence[str] = "auto",
) -> Float[Array, "batch height width channels"]:
    """Convolve every channel with its own kernel, keeping the size.

    Args:
      images: (B, H, W, C), float32 or bfloat16.
      kernel: (kh, kw, 1, C), odd kh and kw; (1, k, 1, C) and (k, 1, 1, C) are the 1-D forms. It is
        cast to the dtype of ``images``. Sums are accumulated in float32.
      dilation: distance between taps in pixels, along both axes.
      implementation: "auto" (by platform, size of the map along the kernel, kernel and channels,
        see ``formulations``), one of ``implementations()``, or three of them: for the forward pass,
        the gradient of the images and that of the kernel. All but "xla" have gradients of their
        own: reverse mode, to any order but for "pallas", and no forward mode. With bfloat16 images
        "xla" rounds the gradient of a float32 kernel to bfloat16, the others keep it float32.

    Returns:
      (B, H, W, C) in the dtype of ``images``.

    Raises:
      ValueError: images of another rank or dtype, a kernel of another shape, of even size or not
        floating-point, a dilation below 1, an unknown implementation, or "pallas" for a map too
        large for a TPU core's memory or for a kernel of more taps or rows than it takes.
      TypeError: a derivative in forward mode of any formulation but "xla".
    """
    check_images(images)
    check_kernel(kernel, channels=images.shape[-1])
    dilation = check_dilation(dilation)
    if implementation == "auto":
        formulations = choose_for(images.shape, kernel.shape, dilation, images.dtype)
    else:
        formulations = parse(implementation)
    if 0 in images.shape:
        formulations = parse("xla")  # the others have no block, row or tap to compute with
    # These two know their own gradients: the reference every derivative, the kernel both at once.
    if set(formulations) in ({"xla"}, {"pallas"}):
        return _MODULES[formulations.forward].convolve(images, kernel, dilation)
    return _convolve(*vary_alike((images, kernel)), dilation, formulations)


def implementations() -> tuple[str, ...]:
    """Return the names that ``depthwise_conv`` takes besides "auto"."""
    return NAMES


def formulation_module(name: str) -> ModuleType:
    """Return the module, ``convolve`` and ``weight_gradient``, of one of ``implementations()``."""
    return _MODULES[name]


def choose_for(
    images_shape: Sequence[Any], kernel_shape: Sequence[int], dilation: int, dtype: DTypeLike
) -> Formulations:
    """Return what "auto" stands for in the program under trace.

    Args:
      images_shape: (B, H, W, C); sizes that an export leaves open are symbolic.
      kernel_shape: (kh, kw, 1, C).
      dilation: distance between taps, in pixels.
      dtype: of the images.
    """
    batch, height, width, channels = images_shape
    if 0 in images_shape or not all(isinstance(size, int) for size in images_shape[1:]):
        return parse("xla")  # nothing to choose for, or an export's symbolic size
    kernel_size = (kernel_shape[0], kernel_shape[1])
    site = Site(kernel_size, dilation, (height, width), channels, jnp.dtype(dtype).name)
    chosen = choose(site, platform=target_platform())
    for part, name in chosen._asdict().items():
        if name == "shift" and shift.has_too_many_slices(site, part):
            chosen = chosen._replace(**{part: "toeplitz"})
    if "pallas" in chosen and not (
        can_place_kernels(batch, dtype) and single.fits(images_shape, kernel_shape, dtype)
    ):
        return Formulations(*("xla" if name == "pallas" else name for name in chosen))
    return chosen


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: Array, kernel: Array, dilation: int, formulations: Formulations) -> Array:
    # Rounded here, so that the gradient of a float32 kernel stays float32.
    return _MODULES[formulations.forward].convolve(images, kernel.astype(images.dtype), dilation)


def _convolve_forward(
    images: Array, kernel: Array, dilation: int, formulations: Formulations
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(images, kernel, dilation, formulations), (images, kernel)


def _convolve_backward(
    dilation: int,
    formulations: Formulations,
    residuals: tuple[Array, Array],
    output_gradient: Array,
) -> tuple[Array, Array]:
    images, kernel = residuals
    # As the operation itself, so that it can be differentiated again.
    backward = formulations._replace(
        forward=formulations.input_gradient, input_gradient=formulations.forward
    )
    input_gradient = _convolve(output_gradient, kernel[::-1, ::-1], dilation, backward)
    return input_gradient, _weight_gradient(images, output_gradient, kernel, dilation, formulations)


_convolve.defvjp(_convolve_forward, _convolve_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _weight_gradient(
    images: Array, output_gradient: Array, kernel: Array, dilation: int, formulations: Formulations
) -> Array:
    module = _MODULES[formulations.weight_gradient]
    return module.weight_gradient(images, kernel, dilation, output_gradient)


def _weight_gradient_forward(
    images: Array, output_gradient: Array, kernel: Array, dilation: int, formulations: Formulations
) -> tuple[Array, tuple[Array, Array, Array]]:
    out = _weight_gradient(images, output_gradient, kernel, dilation, formulations)
    return out, (images, output_gradient, kernel)


def _weight_gradient_backward(
    dilation: int,
    formulations: Formulations,
    residuals: tuple[Array, Array, Array],
    cotangent: Array,
) -> tuple[Array, Array, Array]:
    # It is linear in images and in output gradient; of the kernel only the shape matters.
    images, output_gradient, kernel = residuals
    flipped = cotangent[::-1, ::-1]
    return (
        _convolve(output_gradient, flipped, dilation, formulations),
        _convolve(images, cotangent, dilation, formulations),
        jnp.zeros_like(kernel),
    )


_weight_gradient.defvjp(_weight_gradient_forward, _weight_gradient_backward)
