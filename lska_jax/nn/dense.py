"""Matrix products over channels: of tokens, of maps (1x1 convolutions), and two of them as an MLP.

Parameters are float32; ``dtype`` is the compute dtype.
"""

from typing import SupportsFloat, SupportsIndex

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.initial_values import RngsLike, as_rngs, fan_out_normal, normal
from lska_jax.ops import gelu, pointwise_conv
from lska_jax.ops.broadcast import add_bias
from lska_jax.ops.plain_numbers import plain_float, plain_int
from lska_jax.ops.platform import dtype_between
from lska_jax.ops.recompute import recompute
from lska_jax.ops.rounding import round_to

# Of the transformers and their relatives; their code truncates at +-2, 100 standard deviations.
KERNEL_STD = 0.02


class Dense(nnx.Linear):
    """y = x W + b over the last axis, whose bias has a gradient summed in float32.

    Args:
      in_channels: channels of the input.
      channels: channels of the output.
      use_bias: whether there is b.
      kernel_init: of W; None is normal with std 0.02.
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    dtype: DTypeLike

    def __init__(
        self,
        in_channels: SupportsIndex,
        channels: SupportsIndex,
        *,
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        super().__init__(
            plain_int("in_channels", in_channels),
            plain_int("channels", channels),
            use_bias=use_bias,
            kernel_init=kernel_init or normal(KERNEL_STD),
            dtype=dtype,
            rngs=as_rngs(rngs),
        )

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "*pixels in_channels"], *, dtype: DTypeLike | None = None
    ) -> Float[Array, "*pixels channels"]:
        """Map (..., in_channels) to (..., C), in the compute dtype unless ``dtype`` is another."""
        between = dtype_between(self.dtype)
        out = pointwise_conv(x.astype(self.dtype), self.kernel[...], dtype=between)
        out = out if self.bias is None else add_bias(out, self.bias[...])
        return out.astype(dtype or self.dtype)


class Pointwise(Dense):
    """A 1x1 convolution with bias, as the matrix product over channels that it is.

    Args:
      in_channels: channels of the input.
      channels: channels of the output.
      kernel_init: of the kernel; None is the reference VAN's, normal with std sqrt(2 / channels).
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    bias: nnx.Param[Array]

    def __init__(
        self,
        in_channels: SupportsIndex,
        channels: SupportsIndex,
        *,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        channels = plain_int("channels", channels)
        initial = kernel_init or fan_out_normal(1, 1, channels)
        super().__init__(in_channels, channels, kernel_init=initial, dtype=dtype, rngs=rngs)


class MLP(nnx.Module):
    """project(dropout(gelu(expand(x)))), dropout; of tokens or maps.

    Args:
      channels: C, of input and output.
      hidden_channels: between the two products.
      drop_rate: of the dropout behind each.
      dtype: compute dtype.
      rngs: source of the initial parameters and of the dropout's keys.
    """

    def __init__(
        self,
        channels: SupportsIndex,
        hidden_channels: SupportsIndex,
        *,
        drop_rate: SupportsFloat = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        rngs, drop_rate = as_rngs(rngs), plain_float("drop_rate", drop_rate)
        self.expand = Dense(channels, hidden_channels, dtype=dtype, rngs=rngs)
        self.project = Dense(hidden_channels, channels, dtype=dtype, rngs=rngs)
        self.dropout = nnx.data(nnx.Dropout(drop_rate, rngs=rngs) if drop_rate > 0 else None)

    def __call__(
        self, x: Float[Array, "*pixels channels"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "*pixels channels"]:
        """Map (..., C) to the same shape; ``rngs`` overrides the module's own dropout keys."""
        hidden = self.expand(x, dtype=dtype_between(self.expand.dtype))
        return activate_and_project(hidden, self.project, self.dropout, rngs)


def activate_and_project(
    x: Float[Array, "*pixels in_channels"],
    project: Dense,
    dropout: nnx.Dropout | None = None,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "*pixels channels"]:
    """Return dropout(project(dropout(gelu(x)))), the back of an FFN, in the dtype of ``project``.

    Without dropout only x is kept for its gradients on CPU, of two maps that are its largest.

    Args:
      x: (..., in_channels), float32 or bfloat16.
      project: the last product.
      dropout: behind GELU and behind the product; None is none.
      rngs: of the dropout's keys; None takes its own.
    """
    if dropout is None or dropout.deterministic:
        return recompute(_activate_and_project, x, project)
    hidden = dropout(round_to(gelu(x), project.dtype), rngs=rngs)
    return dropout(project(hidden), rngs=rngs)


def _activate_and_project(x: Array, project: Dense) -> Array:
    return project(round_to(gelu(x), project.dtype))
