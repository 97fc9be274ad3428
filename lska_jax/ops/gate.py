"""The gate of large-kernel attention: a chain of depth-wise convolutions, a 1x1, a product.

    y_0 = x,    y_i = w_i *_{d_i} y_{i-1} + b_i,    output = x . (y_n W + b)

Four 1-D steps are LSKA (arXiv 2309.01439, eq. 4-6), two 2-D ones LKA (arXiv 2202.09741, eq. 1-2),
one or two undilated ones their trivial forms. The backward pass keeps x and y_n alone; the
maps between the steps and the gate are computed again. With ``pallas`` they never leave the core.
In one program with the forward pass XLA sees that it has them already, and keeps them, which is
faster and takes hardly more memory (on TPU and GPU ``remat=True`` of a model saves far more).
"""

import functools
from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from lska_jax.ops.broadcast import add_bias
from lska_jax.ops.checks import Dilations, check_images, check_parameter, check_steps
from lska_jax.ops.depthwise import depthwise_conv
from lska_jax.ops.formulations import Formulations, canonical
from lska_jax.ops.pallas import depthwise_chain, fits
from lska_jax.ops.platform import dtype_between, takes_pallas, vary_alike
from lska_jax.ops.pointwise import pointwise_conv
from lska_jax.ops.reverse_mode import reverse_mode_only

_Chain = tuple[tuple[Array, ...], tuple[Array, ...]]
_Static = tuple[tuple[int, ...], str | Formulations]


@reverse_mode_only
def lska(
    images: Float[Array, "batch height width channels"],
    kernels: Sequence[Float[Array, "_ _ 1 channels"]],
    biases: Sequence[Float[Array, " channels"]],
    pointwise: tuple[Float[Array, "channels channels"], Float[Array, " channels"]],
    *,
    dilations: Dilations,
    implementation: str | Sequence[str] = "auto",
) -> Float[Array, "batch height width channels"]:
    """Gate a map by its own response to a large kernel.

    Args:
      images: (B, H, W, C), float32 or bfloat16.
      kernels: (kh, kw, 1, C) of each step, kh and kw odd. LSKA's are (1, 2d-1), (2d-1, 1), (1, n)
        and (n, 1), see ``kernel_spec``.
      biases: (C,) of each step.
      pointwise: kernel (C, C), inputs first, and bias (C,) of the 1x1.
      dilations: of each step, in pixels; LSKA's are 1, 1, d, d.
      implementation: as in ``depthwise_conv``; "pallas", and "auto" for bfloat16 where TPU kernels
        can be placed, run the whole chain as one kernel where the map fits, which keeps the maps
        between the steps float32. Gradients are reverse mode, with "xla" too.

    Returns:
      (B, H, W, C) in the dtype of ``images``. Parameters are cast to it. The 1x1 of float32 images
      follows ``jax_default_matmul_precision``, which on TPU and GPU is below float32.

    Raises:
      ValueError: kernels, biases and dilations that differ in number, parameters of another shape,
        or as ``depthwise_conv``.
    """
    static = _checked(images, kernels, biases, pointwise, dilations, implementation)
    return _gate(static, *_alike(images, kernels, biases, pointwise))


@reverse_mode_only
def lska_factor(
    images: Float[Array, "batch height width channels"],
    kernels: Sequence[Float[Array, "_ _ 1 channels"]],
    biases: Sequence[Float[Array, " channels"]],
    pointwise: tuple[Float[Array, "channels channels"], Float[Array, " channels"]],
    *,
    dilations: Dilations,
    implementation: str | Sequence[str] = "auto",
) -> Float[Array, "batch height width channels"]:
    """Return what ``lska`` multiplies a map with; arguments and errors are its own."""
    static = _checked(images, kernels, biases, pointwise, dilations, implementation)
    images, chain, pointwise = _alike(images, kernels, biases, pointwise)
    return _mix(_convolve(static, images, chain), pointwise)


def _checked(
    images: Array,
    kernels: Sequence[Array],
    biases: Sequence[Array],
    pointwise: tuple[Array, Array],
    dilations: Dilations,
    implementation: str | Sequence[str],
) -> _Static:
    check_images(images)
    channels = images.shape[-1]
    dilations = check_steps(kernels, biases, dilations, channels=channels)
    check_parameter("pointwise[0]", pointwise[0], (channels, channels))
    check_parameter("pointwise[1]", pointwise[1], (channels,))
    return dilations, canonical(implementation)


def _alike(
    images: Array,
    kernels: Sequence[Array],
    biases: Sequence[Array],
    pointwise: tuple[Array, Array],
) -> tuple[Array, _Chain, tuple[Array, Array]]:
    return vary_alike((images, (tuple(kernels), tuple(biases)), tuple(pointwise)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gate(static: _Static, images: Array, chain: _Chain, pointwise: tuple[Array, Array]) -> Array:
    return images * _mix(_convolve(static, images, chain), pointwise)


def _gate_forward(
    static: _Static, images: Array, chain: _Chain, pointwise: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array, _Chain, tuple[Array, Array]]]:
    response = _convolve(static, images, chain)
    return images * _mix(response, pointwise), (images, response, chain, pointwise)


def _gate_backward(
    static: _Static,
    residuals: tuple[Array, Array, _Chain, tuple[Array, Array]],
    gradient: Array,
) -> tuple[Array, _Chain, tuple[Array, Array]]:
    images, response, chain, pointwise = residuals
    gate, pull_back_mix = jax.vjp(_mix, response, pointwise)
    response_gradient, pointwise_gradient = pull_back_mix(images * gradient)
    _, pull_back_chain = jax.vjp(functools.partial(_convolve, static), images, chain)
    images_gradient, chain_gradient = pull_back_chain(response_gradient)
    return images_gradient + gate * gradient, chain_gradient, pointwise_gradient


_gate.defvjp(_gate_forward, _gate_backward)


def _convolve(static: _Static, images: Array, chain: _Chain) -> Array:
    dilations, implementation = static
    kernels, biases = chain
    dtype = images.dtype
    sizes = [(kernel.shape[0], kernel.shape[1]) for kernel in kernels]
    if takes_pallas(implementation, batch=images.shape[0], dtype=images.dtype) and fits(
        images.shape, images.dtype, kernel_sizes=sizes
    ):
        return depthwise_chain(images, kernels, biases, dilations=dilations)
    images = images.astype(dtype_between(dtype))
    for kernel, bias, dilation in zip(kernels, biases, dilations, strict=True):
        images = depthwise_conv(images, kernel, dilation=dilation, implementation=implementation)
        images = add_bias(images, bias)
    return images.astype(dtype)


def _mix(response: Array, pointwise: tuple[Array, Array]) -> Array:
    kernel, bias = pointwise
    return add_bias(pointwise_conv(response, kernel), bias)
