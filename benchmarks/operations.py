"""The operations that ``benchmarks.ops`` times, in JAX and in PyTorch, on the same arrays.

Every operation is (inputs, parameters) -> output with a bias for each convolution, as the network
has it. JAX sees NHWC, PyTorch sees the same numbers in either memory format.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lska_jax.ops import depthwise_conv, lska, pointwise_conv
from lska_jax.ops.kernel_spec import kernel_spec
from lska_jax.ops.processor import usable_cores

# Formulations that run on an accelerator only; elsewhere they are interpreted, which is no speed.
ACCELERATOR_ONLY = ("pallas",)
ALL_LAX = "xla"
# What the package itself runs.
PACKAGE = "package"
TORCH_FORMATS = ("torch contiguous", "torch channels_last")

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """A convolution: its kernel's size and dilation, and whether channels mix.

    Attributes:
      size: height and width of the kernel.
      dilation: distance between taps, in pixels.
      out_channels: of a 1x1 that mixes channels; None is a depth-wise one.
    """

    size: tuple[int, int]
    dilation: int = 1
    out_channels: int | None = None


def cascade(k: int) -> list[Step]:
    """Return the four 1-D convolutions of one LSKA."""
    spec = kernel_spec(k)
    local, dilated, d = spec.local_size, spec.dilated_size, spec.dilation
    return [Step((1, local)), Step((local, 1)), Step((1, dilated), d), Step((dilated, 1), d)]


def random_arrays(
    shape: tuple[int, int, int, int], steps: list[Step], *, gated: bool = False
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Return images, (kernel, bias) of every step, and a gradient for the output; all normal.

    Args:
      shape: (B, H, W, C) of the images.
      steps: the convolutions.
      gated: whether a 1x1 follows that the images are multiplied by.
    """
    rng = np.random.default_rng(0)

    def normal(*size: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(size)).astype(np.float32)

    channels = shape[-1]
    params = []
    for step in [*steps, *([Step((1, 1), out_channels=channels)] if gated else [])]:
        depth = channels if step.out_channels else 1
        width = step.out_channels or channels
        fan_in = depth * step.size[0] * step.size[1]
        params.append((normal(*step.size, depth, width, scale=fan_in**-0.5), normal(width)))
        channels = width
    return normal(*shape), params, normal(*shape[:-1], channels)


def jax_chain(
    steps: list[Step], *, implementation: str, pointwise: str = PACKAGE, gated: bool = False
) -> Callable[..., jax.Array]:
    """Return the steps in JAX: (images, params) -> output.

    Args:
      steps: the convolutions.
      implementation: of the depth-wise ones, see ``lska_jax.ops.depthwise_conv``.
      pointwise: key of ``POINTWISE``, for those that mix channels. With the package's own a gated
        chain is ``lska_jax.ops.lska``.
      gated: as in ``random_arrays``.
    """

    def run_package(images: jax.Array, params: Any) -> jax.Array:
        kernels, biases = zip(*params[:-1], strict=True)
        kernel, bias = params[-1]
        dilations = [step.dilation for step in steps]
        return lska(
            images,
            kernels,
            biases,
            (kernel[0, 0], bias),
            dilations=dilations,
            implementation=implementation,
        )

    if gated and pointwise == PACKAGE:
        return run_package

    def run(images: jax.Array, params: Any) -> jax.Array:
        out = images
        for step, (kernel, bias) in zip(steps, params, strict=False):
            if step.out_channels:
                out = POINTWISE[pointwise](out, kernel) + bias
            else:
                out = bias + depthwise_conv(
                    out, kernel, dilation=step.dilation, implementation=implementation
                )
        if gated:
            kernel, bias = params[-1]
            out = images * (POINTWISE[pointwise](out, kernel) + bias)
        return out

    return run


def _convolution(x: jax.Array, w: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=numbers)


def _four_axes(x: jax.Array, w: jax.Array) -> jax.Array:
    return lax.dot_general(x, w[0, 0], (((3,), (0,)), ((), ())))


def _package(x: jax.Array, w: jax.Array) -> jax.Array:
    return pointwise_conv(x, w[0, 0])


POINTWISE: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    ALL_LAX: _convolution,
    "four axes": _four_axes,
    PACKAGE: _package,
}


def jax_call(run: Callable[..., jax.Array], arrays: Any, *, mode: str) -> Call:
    """Return a call of a jitted operation.

    Args:
      run: from ``jax_chain``.
      arrays: from ``random_arrays``.
      mode: "forward", or "forward + backward": the output, and the gradients of the images and of
        every parameter.
    """
    images, params, gradient = jax.tree.map(jnp.asarray, arrays)
    if mode == "forward":
        forward = jax.jit(run)
        return lambda: forward(images, params)

    @jax.jit
    def both(images: jax.Array, params: Any, gradient: jax.Array) -> Any:
        out, pull = jax.vjp(run, images, params)
        return out, pull(gradient)

    return lambda: both(images, params, gradient)


def torch_call(
    steps: list[Step], arrays: Any, *, mode: str, memory_format: str, gated: bool = False
) -> Call:
    """Return a call of the same operation in PyTorch, on all cores.

    Args:
      steps: the convolutions.
      arrays: from ``random_arrays``.
      mode: as in ``jax_call``.
      memory_format: one of ``TORCH_FORMATS``.
      gated: as in ``random_arrays``.
    """
    import torch
    from torch import nn

    torch.set_num_threads(usable_cores())
    layout = torch.channels_last if "last" in memory_format else torch.contiguous_format
    images, params, gradient = arrays
    all_steps = [*steps, *([Step((1, 1), out_channels=images.shape[-1])] if gated else [])]

    def tensor(array: np.ndarray) -> Any:
        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    modules = []
    for step, (kernel, bias) in zip(all_steps, params, strict=True):
        height, width, depth, channels = kernel.shape
        padding = tuple(step.dilation * (size - 1) // 2 for size in step.size)
        module = nn.Conv2d(
            depth if step.out_channels else channels,
            channels,
            (height, width),
            padding=padding,
            dilation=step.dilation,
            groups=1 if step.out_channels else channels,
        )
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
            module.bias.copy_(torch.from_numpy(bias))
        modules.append(module)
    network = nn.Sequential(*modules).to(memory_format=layout)
    x, g = tensor(images), tensor(gradient)

    def run(x: Any) -> Any:
        return x * network(x) if gated else network(x)

    def forward() -> Any:
        with torch.inference_mode():
            return run(x)

    needed = [x.clone().requires_grad_(), *network.parameters()]

    def both() -> Any:
        out = run(needed[0])
        return out, torch.autograd.grad(out, needed, g)

    return forward if mode == "forward" else both


def check_agreement(contenders: Mapping[str, Call], *, mode: str) -> None:
    """Raise if contenders compute different results: a faster other function is no gain.

    Args:
      contenders: name -> a call from ``jax_call`` or ``torch_call``.
      mode: as there; the gradients are compared too.

    Raises:
      ValueError: a result differs from the first contender's by more than float32 rounding.
    """
    expected: list[np.ndarray] = []
    for name, call in contenders.items():
        result = call()
        maps, parameters = [result], []
        if mode != "forward":
            images_gradient, *parameters = jax.tree.leaves(result[1])
            maps = [result[0], images_gradient]
        arrays = [_as_numpy(array, order=(0, 2, 3, 1)) for array in maps]
        arrays += [_as_numpy(array, order=(2, 3, 1, 0)) for array in parameters]
        expected = expected or arrays
        for array, other in zip(arrays, expected, strict=True):
            error = np.abs(array - other).max() / np.abs(other).max()
            # Float32 rounding: sums of a few hundred terms, of 25,000 for the parameters', through
            # up to five convolutions.
            if not error < 1e-4:
                raise ValueError(
                    f"{name} differs from {next(iter(contenders))} by {error:.1e} of the largest "
                    "value."
                )


def _as_numpy(array: Any, *, order: tuple[int, ...]) -> np.ndarray:
    """Return JAX's array as it is, PyTorch's with its four axes in another order."""
    if isinstance(array, jax.Array):
        return np.asarray(array)
    array = array.detach()
    return array.permute(order).numpy() if array.ndim == len(order) else array.numpy()
