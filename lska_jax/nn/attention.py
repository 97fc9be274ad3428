"""Large kernel attention and its separable form.

LKA (Visual Attention Network, arXiv 2202.09741, eq. 1-2) gates its input with a large depth-wise
receptive field, built from a local and a dilated depth-wise convolution and a 1x1:

    Z = W_1x1 * (W_dilated *_d (W_local * F)),    output = Z . F      (. elementwise)

LSKA (arXiv 2309.01439, eq. 4-6) splits each 2-D depth-wise kernel into a 1xn and an nx1 one. The
trivial forms use one undilated k x k kernel, or 1xk and kx1 (figure 2 of the LSKA paper).
All convolutions carry a bias and keep the size.
"""

from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.dense import Pointwise
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.nn.layers import DepthwiseConv
from lska_jax.ops import lska
from lska_jax.ops.formulations import canonical
from lska_jax.ops.gate import lska_factor
from lska_jax.ops.image_shapes import check_channels
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, check_odd_kernel, kernel_spec
from lska_jax.ops.plain_numbers import plain_int


class _DepthwiseGate(nnx.Module):
    """A chain of depth-wise convolutions and a 1x1 that multiplies the input."""

    def __init__(
        self,
        channels: SupportsIndex,
        steps: Sequence[tuple[tuple[int, int], int]],
        *,
        dtype: DTypeLike,
        implementation: str | Sequence[str],
        rngs: RngsLike,
    ):
        channels, rngs = plain_int("channels", channels), as_rngs(rngs)
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
        self, x: Float[Array | np.ndarray, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return x gated by its large-kernel response: (B, H, W, C) in the compute dtype.

        Raises:
          ValueError: x of another rank or number of channels; channels-first input is named so.
        """
        return self._apply(lska, x)

    def factor(
        self, x: Float[Array | np.ndarray, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return what the call multiplies x with: the response of the large kernel and the 1x1."""
        return self._apply(lska_factor, x)

    def _apply(self, operation: Callable[..., Array], x: Any) -> Array:
        check_channels(x, self.pointwise.in_features)
        return operation(
            jnp.asarray(x, self.pointwise.dtype),
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
      rngs: source of the initial parameters: an ``nnx.Rngs``, a seed or a key.

    Raises:
      ValueError: no cascade has this (k, d); the message names the nearest that do.
    """

    def __init__(
        self,
        channels: SupportsIndex,
        k: SupportsIndex = DEFAULT_KERNEL_SIZE,
        *,
        dilation: SupportsIndex | None = None,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: RngsLike,
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
        channels: SupportsIndex,
        k: SupportsIndex = DEFAULT_KERNEL_SIZE,
        *,
        dilation: SupportsIndex | None = None,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: RngsLike,
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
        channels: SupportsIndex,
        k: SupportsIndex = DEFAULT_KERNEL_SIZE,
        *,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: RngsLike,
    ):
        k = check_odd_kernel(k)
        steps = [((k, k), 1)]
        super().__init__(channels, steps, dtype=dtype, implementation=implementation, rngs=rngs)


class LSKATrivial(_DepthwiseGate):
    """One undilated 1 x k, one k x 1, then 1x1; k is any positive odd number.

    Other arguments are those of ``LKA``; there is no dilation.
    """

    def __init__(
        self,
        channels: SupportsIndex,
        k: SupportsIndex = DEFAULT_KERNEL_SIZE,
        *,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: RngsLike,
    ):
        k = check_odd_kernel(k)
        steps = [((1, k), 1), ((k, 1), 1)]
        super().__init__(channels, steps, dtype=dtype, implementation=implementation, rngs=rngs)
