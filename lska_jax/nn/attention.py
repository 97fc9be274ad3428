"""Large kernel attention and its separable form.

LKA (Visual Attention Network, arXiv 2202.09741, eq. 1-2) gates its input with a large depth-wise
receptive field, built from a local and a dilated depth-wise convolution and a 1x1:

    Z = W_1x1 * (W_dilated *_d (W_local * F)),    output = Z . F      (. elementwise)

LSKA (arXiv 2309.01439, eq. 4-6) splits each 2-D depth-wise kernel into a 1xn and an nx1 one. The
trivial forms use one undilated k x k kernel, or 1xk and kx1 (figure 2 of the LSKA paper).
All convolutions carry a bias and keep the size.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.layers import DepthwiseConv, Pointwise
from lska_jax.ops import lska
from lska_jax.ops.formulations import canonical
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, check_odd_kernel, kernel_spec


class _DepthwiseGate(nnx.Module):
    """A chain of depth-wise convolutions and a 1x1 that multiplies the input."""

    def __init__(
        self,
        channels: int,
        steps: Sequence[tuple[tuple[int, int], int]],
        *,
        dtype: DTypeLike,
        implementation: str | Sequence[str],
        rngs: nnx.Rngs,
    ):
        self.depthwise = nnx.List(
            DepthwiseConv(
                channels,
                kernel_size,
                dilation=dilation,
                dtype=dtype,
                implementation=implementation,
                rngs=rngs,
            )
            for kernel_size, dilation in steps
        )
        self.pointwise = Pointwise(channels, channels, dtype=dtype, rngs=rngs)
        self.implementation = canonical(implementation)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return x gated by its large-kernel response: (B, H, W, C) in the compute dtype."""
        return lska(
            x.astype(self.pointwise.dtype),
            [step.kernel[...] for step in self.depthwise],
            [step.bias[...] for step in self.depthwise],
            (self.pointwise.kernel[...], self.pointwise.bias[...]),
            dilations=[step.dilation for step in self.depthwise],
            implementation=self.implementation,
        )


class LKA(_DepthwiseGate):
    """Large kernel attention: (2d-1)x(2d-1), then n x n with dilation d, then 1x1.

    Args:
      channels: C, of input and output.
      k: extent of the stacked kernel; VAN's code has 23 (its text says 21).
      dilation: d; None takes the reference's choice for k.
      dtype: compute dtype; parameters are float32.
      implementation: formulation of the depth-wise convolutions, see ``ops.lska``.
      rngs: source of the initial parameters.

    Raises:
      ValueError: no cascade has this (k, d); the message names the nearest that do.
    """

    def __init__(
        self,
        channels: int,
        k: int = DEFAULT_KERNEL_SIZE,
        *,
        dilation: int | None = None,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: nnx.Rngs,
    ):
        spec = kernel_spec(k, dilation=dilation)
        local, dilated = spec.local_size, spec.dilated_size
        steps = [((local, local), 1), ((dilated, dilated), spec.dilation)]
        super().__init__(channels, steps, dtype=dtype, implementation=implementation, rngs=rngs)


class LSKA(_DepthwiseGate):
    """Large separable kernel attention: 1-D kernels, horizontal then vertical, local then dilated.

    Arguments and errors are those of ``LKA``.
    """

    def __init__(
        self,
        channels: int,
        k: int = DEFAULT_KERNEL_SIZE,
        *,
        dilation: int | None = None,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: nnx.Rngs,
    ):
        spec = kernel_spec(k, dilation=dilation)
        local, dilated, d = spec.local_size, spec.dilated_size, spec.dilation
        steps = [((1, local), 1), ((local, 1), 1), ((1, dilated), d), ((dilated, 1), d)]
        super().__init__(channels, steps, dtype=dtype, implementation=implementation, rngs=rngs)


class LKATrivial(_DepthwiseGate):
    """One undilated k x k depth-wise convolution, then 1x1; k is any positive odd number.

    Other arguments are those of ``LKA``; there is no dilation.
    """

    def __init__(
        self,
        channels: int,
        k: int = DEFAULT_KERNEL_SIZE,
        *,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: nnx.Rngs,
    ):
        steps = [((check_odd_kernel(k), k), 1)]
        super().__init__(channels, steps, dtype=dtype, implementation=implementation, rngs=rngs)


class LSKATrivial(_DepthwiseGate):
    """One undilated 1 x k, one k x 1, then 1x1; k is any positive odd number.

    Other arguments are those of ``LKA``; there is no dilation.
    """

    def __init__(
        self,
        channels: int,
        k: int = DEFAULT_KERNEL_SIZE,
        *,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: nnx.Rngs,
    ):
        steps = [((1, check_odd_kernel(k)), 1), ((k, 1), 1)]
        super().__init__(channels, steps, dtype=dtype, implementation=implementation, rngs=rngs)
