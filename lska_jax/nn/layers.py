"""The pieces that blocks are made of, as VAN has them (arXiv 2202.09741, section 3) and others.

Parameters and normalisation statistics are float32; ``dtype`` is the compute dtype.
"""

from collections.abc import Sequence
from typing import Any, SupportsFloat, SupportsIndex

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.dense import Pointwise, activate_and_project
from lska_jax.nn.initial_values import RngsLike, as_rngs, fan_out_normal
from lska_jax.ops import depthwise_conv
from lska_jax.ops.batch_norm import affine, moments, normalise
from lska_jax.ops.broadcast import add_bias, scale_by
from lska_jax.ops.checks import check_dilation
from lska_jax.ops.expand import expand_and_convolve
from lska_jax.ops.formulations import canonical
from lska_jax.ops.images_in_turn import in_turn
from lska_jax.ops.layer_norm import layer_norm
from lska_jax.ops.pallas import conv_ffn, ffn_fits
from lska_jax.ops.plain_numbers import plain_float, plain_int
from lska_jax.ops.platform import dtype_between, takes_pallas
from lska_jax.ops.strided import strided_conv

# PyTorch's momentum of 0.1 is 0.9 here. The running variance is the biased one, PyTorch's is
# unbiased: after training they differ by n / (n - 1), with loaded statistics nothing differs.
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5
LAYER_NORM_EPSILON = 1e-6
LAYER_SCALE_INIT = 1e-2


class DepthwiseConv(nnx.Module):
    """Depth-wise convolution, stride 1, keeping the size.

    Args:
      channels: C, of input and output.
      kernel_size: (height, width), both odd.
      dilation: distance between taps, in pixels.
      use_bias: whether a bias is added.
      kernel_init: of the kernel; None is the reference VAN's, normal with std sqrt(2 / (kh kw)).
      dtype: compute dtype.
      implementation: formulation, see ``ops.depthwise_conv``.
      rngs: source of the initial parameters.
    """

    bias: Any

    def __init__(
        self,
        channels: SupportsIndex,
        kernel_size: tuple[SupportsIndex, SupportsIndex],
        *,
        dilation: SupportsIndex = 1,
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: RngsLike,
    ):
        height, width = (plain_int("kernel_size", size) for size in kernel_size)
        channels = plain_int("channels", channels)
        initializer = kernel_init or fan_out_normal(height, width, 1)
        self.kernel = nnx.Param(
            initializer(as_rngs(rngs).params(), (height, width, 1, channels), jnp.float32)
        )
        bias = nnx.Param(jnp.zeros((channels,), jnp.float32)) if use_bias else None
        self.bias = nnx.data(bias)
        self.dilation = check_dilation(dilation)
        self.dtype = dtype
        self.implementation = canonical(implementation)

    def __call__(
        self, x: Float[Array, "batch height width channels"], *, dtype: DTypeLike | None = None
    ) -> Float[Array, "batch height width channels"]:
        """Convolve (B, H, W, C) and add the bias, if there is one.

        In the compute dtype unless ``dtype`` is another.
        """
        out = depthwise_conv(
            x.astype(dtype or self.dtype),
            self.kernel[...],
            dilation=self.dilation,
            implementation=self.implementation,
        )
        return out if self.bias is None else add_bias(out, self.bias[...])


class BatchNorm(nnx.BatchNorm):
    """BatchNorm over the whole (global) batch, computed in float32, returned in ``dtype``.

    Under one jit over a sharded batch the mean is over all devices: synchronised by construction,
    where the reference averages each GPU's statistics once an epoch.
    """

    scale: nnx.Param[Array]
    bias: nnx.Param[Array]

    def __init__(self, channels: SupportsIndex, *, dtype: DTypeLike = jnp.float32, rngs: RngsLike):
        # nnx.BatchNorm rounds its running statistics to a bfloat16 ``dtype``; so it stays float32.
        super().__init__(
            plain_int("channels", channels),
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=BATCH_NORM_EPSILON,
            dtype=jnp.float32,
            rngs=as_rngs(rngs),
        )
        self.output_dtype = dtype

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """Normalise (..., C) over all other axes; running statistics are updated in training."""
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            factor = scale * lax.rsqrt(self.var[...] + self.epsilon)
            return affine(x.astype(jnp.float32), self.mean[...], factor, bias).astype(
                self.output_dtype
            )
        statistics = moments(x, self.mean[...])
        for running, new in zip((self.mean, self.var), statistics, strict=True):
            # Not running[...] = : that searches the whole trace for where the array comes from.
            running.set_value(self.momentum * running[...] + (1.0 - self.momentum) * new)
        return normalise(x, scale, bias, statistics, self.epsilon).astype(self.output_dtype)


class LayerNorm(nnx.LayerNorm):
    """LayerNorm over channels, computed in float32, returned in ``dtype``."""

    def __init__(
        self,
        channels: SupportsIndex,
        *,
        epsilon: SupportsFloat = LAYER_NORM_EPSILON,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        super().__init__(
            plain_int("channels", channels),
            epsilon=plain_float("epsilon", epsilon),
            dtype=jnp.float32,
            rngs=as_rngs(rngs),
        )
        self.output_dtype = dtype

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """Normalise (..., C) over the last axis."""
        # Another dtype than the output's may be the narrower one.
        x = x if x.dtype == self.output_dtype else x.astype(jnp.float32)
        scale, bias = (None if p is None else p[...] for p in (self.scale, self.bias))
        return layer_norm(x, scale, bias, epsilon=self.epsilon).astype(self.output_dtype)


class LayerScale(nnx.Module):
    """A learned factor for each channel of a residual branch, initialised to 1e-2."""

    def __init__(
        self,
        channels: SupportsIndex,
        *,
        initial: SupportsFloat = LAYER_SCALE_INIT,
        dtype: DTypeLike = jnp.float32,
    ):
        channels, initial = plain_int("channels", channels), plain_float("initial", initial)
        # The explicit dtype keeps the parameter strongly typed: a weak one compiles twice.
        self.scale = nnx.Param(jnp.full((channels,), initial, jnp.float32))
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        """Scale (..., C)."""
        return scale_by(x.astype(self.dtype), self.scale[...])


class DropPath(nnx.Dropout):
    """Drop a residual branch for whole samples (stochastic depth, arXiv 1603.09382).

    Args:
      rate: of the samples that are dropped; the others are divided by 1 - rate.
      ndim: of the branch: 4 of maps (B, H, W, C), 3 of tokens (B, N, C).
      rngs: source of the keys.
    """

    def __init__(self, rate: SupportsFloat, *, ndim: int = 4, rngs: RngsLike):
        rate = plain_float("rate", rate)
        # Without a rate there is no stream to carry, and the model's state stays parameters only.
        streams = as_rngs(rngs) if rate > 0 else None
        super().__init__(rate, broadcast_dims=tuple(range(1, ndim)), rngs=streams)


class StridedConv(nnx.Conv):
    """A dense convolution: ``nnx.Conv``, whose bias has a gradient summed in float32.

    Args:
      in_channels: channels of the input.
      channels: channels of the output.
      kernel_size: height and width.
      stride: along both axes.
      padding: on each side, in pixels; None is half the kernel, which covers every pixel.
      use_bias: whether a bias is added.
      kernel_init: of the kernel; None is the reference VAN's, normal with std sqrt(2 / fan_out).
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    dtype: DTypeLike
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]

    def __init__(
        self,
        in_channels: SupportsIndex,
        channels: SupportsIndex,
        *,
        kernel_size: SupportsIndex,
        stride: SupportsIndex,
        padding: SupportsIndex | None = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        channels = plain_int("channels", channels)
        size, step = plain_int("kernel_size", kernel_size), plain_int("stride", stride)
        each_side = size // 2 if padding is None else plain_int("padding", padding)
        super().__init__(
            plain_int("in_channels", in_channels),
            channels,
            (size, size),
            strides=(step, step),
            # Explicit pairs: "SAME" pads asymmetrically at stride > 1, PyTorch does not.
            padding=((each_side, each_side), (each_side, each_side)),
            use_bias=use_bias,
            kernel_init=kernel_init or fan_out_normal(size, size, channels),
            dtype=dtype,
            rngs=as_rngs(rngs),
        )

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Map (B, H, W, in_channels) to (B, H', W', C).

        H' = ceil(H / stride) with the usual padding, floor((H - size) / stride) + 1 with none.
        """
        out = strided_conv(
            x.astype(self.dtype),
            self.kernel[...],
            stride=self.strides[0],
            padding=self.padding[0][0],
        )
        out = out if self.bias is None else add_bias(out, self.bias[...])
        return out.astype(self.dtype)


class PatchEmbedding(nnx.Module):
    """Overlapping patch embedding: a strided convolution and BatchNorm.

    Args:
      in_channels: channels of the input map.
      channels: channels of the output.
      kernel_size: 7 in the first stage, 3 after.
      stride: 4 in the first stage, 2 after.
      dtype: compute dtype.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        in_channels: SupportsIndex,
        channels: SupportsIndex,
        *,
        kernel_size: SupportsIndex,
        stride: SupportsIndex,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        rngs = as_rngs(rngs)
        self.projection = StridedConv(
            in_channels, channels, kernel_size=kernel_size, stride=stride, dtype=dtype, rngs=rngs
        )
        self.norm = BatchNorm(channels, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch height width in_channels"]
    ) -> Float[Array, "batch out_height out_width channels"]:
        """Return (B, ceil(H / stride), ceil(W / stride), C)."""
        return self.norm(self.projection(x))


class ConvFFN(nnx.Module):
    """Feed-forward network with a 3x3 depth-wise convolution between its two 1x1.

    expand -> (ReLU ->) 3x3 depth-wise -> GELU -> dropout -> project -> dropout

    Args:
      channels: C, of input and output.
      hidden_channels: between the two 1x1.
      drop_rate: of the dropout behind GELU and behind the last 1x1.
      linear_init: of the kernels of both 1x1; None is VAN's, normal with std sqrt(2 / fan_out).
      use_relu: whether a ReLU stands ahead of the depth-wise convolution.
      remat: whether on CPU large maps between the layers are computed again for the gradients,
        instead of being kept; not with dropout.
      dtype: compute dtype.
      implementation: formulation of the depth-wise convolution, see ``ops.depthwise_conv``.
      rngs: source of the initial parameters and of the dropout's keys.
    """

    def __init__(
        self,
        channels: SupportsIndex,
        hidden_channels: SupportsIndex,
        *,
        drop_rate: SupportsFloat = 0.0,
        linear_init: nnx.Initializer | None = None,
        use_relu: bool = False,
        remat: bool = False,
        dtype: DTypeLike = jnp.float32,
        implementation: str | Sequence[str] = "auto",
        rngs: RngsLike,
    ):
        rngs, drop_rate = as_rngs(rngs), plain_float("drop_rate", drop_rate)

        self.expand = Pointwise(
            channels, hidden_channels, kernel_init=linear_init, dtype=dtype, rngs=rngs
        )
        self.depthwise = DepthwiseConv(
            hidden_channels, (3, 3), dtype=dtype, implementation=implementation, rngs=rngs
        )
        self.project = Pointwise(
            hidden_channels, channels, kernel_init=linear_init, dtype=dtype, rngs=rngs
        )
        self.use_relu, self.remat = use_relu, remat
        self.dropout = nnx.data(nnx.Dropout(drop_rate, rngs=rngs) if drop_rate > 0 else None)
        self.dtype = dtype

    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        scale: LayerScale | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Map (B, H, W, C) to the same shape, times the layer scale if there is one.

        ``rngs`` overrides the module's own dropout keys.
        """
        if self._is_fused(x):
            return conv_ffn(
                x.astype(self.dtype),
                (self.expand.kernel[...], self.expand.bias[...]),
                (self.depthwise.kernel[...], self.depthwise.bias[...]),
                (self.project.kernel[...], self.project.bias[...]),
                scale=None if scale is None else scale.scale[...],
            )
        if self.dropout is not None and not self.dropout.deterministic:
            hidden = self._expanded(x, self.expand, self.depthwise)
            out = activate_and_project(hidden, self.project, self.dropout, rngs)
        else:
            size = self.expand.out_features * x.shape[1] * x.shape[2] * 4
            layers = (self.expand, self.depthwise, self.project)
            out = in_turn(self._branch, x, layers, bytes_an_image=size, remat=self.remat)
        return out if scale is None else scale(out)

    def _branch(self, x: Array, layers: tuple[Pointwise, DepthwiseConv, Pointwise]) -> Array:
        expand, depthwise, project = layers
        return activate_and_project(self._expanded(x, expand, depthwise), project)

    def _expanded(self, x: Array, expand: Pointwise, depthwise: DepthwiseConv) -> Array:
        between = dtype_between(self.dtype)
        if jnp.dtype(self.dtype) == jnp.float32 and not self.use_relu:
            return expand_and_convolve(
                x.astype(self.dtype),
                (expand.kernel[...], expand.bias[...]),
                (depthwise.kernel[...], depthwise.bias[...]),
                implementation=depthwise.implementation,
            )
        x = expand(x, dtype=between)
        return depthwise(nnx.relu(x) if self.use_relu else x, dtype=between)

    def _is_fused(self, x: Array) -> bool:
        hidden = self.expand.out_features
        return (
            takes_pallas(self.depthwise.implementation, batch=x.shape[0], dtype=self.dtype)
            and self.dropout is None
            and not self.use_relu
            and ffn_fits(x.shape, self.dtype, hidden=hidden)
        )
