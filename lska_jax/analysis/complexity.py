"""Parameters and FLOPs of an attention and of a whole VAN, counted from the architecture.

The FLOPs of a forward pass are counted as the published figures of VAN (arXiv 2202.09741) and LSKA
(arXiv 2309.01439) are: one for each multiply-accumulate of a convolution or matrix product, one for
each bias that is added, two for each element that BatchNorm normalises. Activations, LayerNorm,
layer scale, sums, products and pooling count nothing.
"""

from typing import NamedTuple

from lska_jax.models.van import VANConfig
from lska_jax.ops.kernel_spec import DEFAULT_KERNEL_SIZE, kernel_spec


class Cost(NamedTuple):
    """What a part costs.

    Attributes:
      parameters: trainable ones.
      flops: of one image's forward pass.
    """

    parameters: int
    flops: int

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        """Return the cost of both."""
        return Cost(self.parameters + other.parameters, self.flops + other.flops)


def attention_cost(
    attention: str,
    channels: int,
    *,
    height: int,
    width: int,
    k: int = DEFAULT_KERNEL_SIZE,
    dilation: int | None = None,
) -> Cost:
    """Count one attention module: its depth-wise convolutions and its 1x1.

    Args:
      attention: key of ``lska_jax.models.van.ATTENTIONS``.
      channels: of the map.
      height: of the map, in pixels.
      width: of the map, in pixels.
      k: extent of the large kernel.
      dilation: d of the cascade; None takes the reference's choice for k.

    Raises:
      ValueError: no cascade has this (k, d).
    """
    if attention.endswith("_trivial"):
        sizes = [k]
    else:
        spec = kernel_spec(k, dilation=dilation)
        sizes = [spec.local_size, spec.dilated_size]
    taps = [tap for n in sizes for tap in ([n, n] if attention.startswith("lska") else [n * n])]
    pixels = height * width
    cost = _convolution(channels, channels, pixels=pixels)
    for count in taps:
        cost += _convolution(1, channels, taps=count, pixels=pixels)
    return cost


def van_cost(config: VANConfig, *, height: int = 224, width: int = 224) -> Cost:
    """Count a whole network.

    Args:
      config: its architecture.
      height: of the image, in pixels.
      width: of the image, in pixels.
    """
    total = Cost(0, 0)
    in_channels = config.in_channels
    stages = zip(config.dims, config.depths, config.ffn_ratios, strict=True)
    for index, (channels, depth, ffn_ratio) in enumerate(stages):
        size, stride = (7, config.stem_stride) if index == 0 else (3, 2)
        height, width = -(-height // stride), -(-width // stride)
        pixels = height * width
        total += _convolution(in_channels, channels, taps=size * size, pixels=pixels)
        total += _batch_norm(channels, pixels)
        hidden = channels * ffn_ratio
        block = (
            _batch_norm(channels, pixels),
            _convolution(channels, channels, pixels=pixels),
            attention_cost(
                config.attention,
                channels,
                height=height,
                width=width,
                k=config.k,
                dilation=config.dilation,
            ),
            _convolution(channels, channels, pixels=pixels),
            _batch_norm(channels, pixels),
            _convolution(channels, hidden, pixels=pixels),
            _convolution(1, hidden, taps=9, pixels=pixels),
            _convolution(hidden, channels, pixels=pixels),
            Cost(2 * channels, 0),  # layer scales
        )
        for part in block * depth:
            total += part
        total += Cost(2 * channels, 0)  # LayerNorm
        in_channels = channels
    if config.num_classes:
        total += _convolution(in_channels, config.num_classes, pixels=1)
    return total


def _convolution(in_channels: int, channels: int, *, taps: int = 1, pixels: int) -> Cost:
    """Count a convolution with bias; depth-wise ones have one input channel a group."""
    parameters = (in_channels * taps + 1) * channels
    return Cost(parameters, parameters * pixels)


def _batch_norm(channels: int, pixels: int) -> Cost:
    return Cost(2 * channels, 2 * channels * pixels)
