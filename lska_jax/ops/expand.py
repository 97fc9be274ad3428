"""The front of an FFN with a 3x3 between its two 1x1: expand, then convolve channel by channel.

    y = W_3x3 * (W x + b) + b'

On CPU the expanded map is padded before it exists: x has a channel of ones besides, with b for its
row of W, and zeros around it, of which the product makes the zeros that the 3x3 reads. A map of
several times as many channels is then neither added to nor copied. Only without gradients: theirs
would take longer, and keep more.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops import shift, two_forms
from lska_jax.ops.broadcast import add_bias
from lska_jax.ops.depthwise import choose_for, depthwise_conv
from lska_jax.ops.formulations import parse
from lska_jax.ops.platform import target_platform
from lska_jax.ops.pointwise import pointwise_conv
from lska_jax.ops.reverse_mode import reverse_mode_only

_Layer = tuple[Array, Array]
# Pixels to be multiplied over pixels of the map. A map of 14 x 14 would have a third more.
_MOST_PADDING = 1.2


@reverse_mode_only
def expand_and_convolve(
    images: Float[Array, "batch height width in_channels"],
    expand: tuple[Float[Array, "in_channels channels"], Float[Array, " channels"]],
    depthwise: tuple[Float[Array, "3 3 1 channels"], Float[Array, " channels"]],
    *,
    implementation: str | Sequence[str] = "auto",
) -> Float[Array, "batch height width channels"]:
    """Return the 3x3 depth-wise convolution of the expanded map.

    Args:
      images: (B, H, W, in_channels) float32.
      expand: kernel and bias of the 1x1.
      depthwise: kernel and bias of the 3x3.
      implementation: of the 3x3, as in ``depthwise_conv``.

    Returns:
      (B, H, W, C) float32. Gradients are reverse mode.
    """
    both = functools.partial(_one_after_the_other, implementation=implementation)
    if not _is_padded_ahead(images, depthwise[0], implementation):
        return both(images, expand, depthwise)
    return two_forms.apply(_padded_ahead, both, images, expand, depthwise)


def _is_padded_ahead(images: Array, kernel: Array, implementation: str | Sequence[str]) -> bool:
    is_fixed = all(isinstance(size, int) for size in images.shape)  # not an export's symbolic batch
    if target_platform() != "cpu" or not is_fixed or 0 in images.shape:
        return False
    _, height, width, _ = images.shape
    if (height + 2) * (width + 2) >= _MOST_PADDING * height * width:
        return False
    if implementation != "auto":
        return parse(implementation).forward == "shift"
    shape = (*images.shape[:3], kernel.shape[-1])
    return choose_for(shape, kernel.shape, 1, images.dtype).forward == "shift"


def _one_after_the_other(
    images: Array, expand: _Layer, depthwise: _Layer, *, implementation: str | Sequence[str]
) -> Array:
    maps = add_bias(pointwise_conv(images, expand[0]), expand[1])
    maps = depthwise_conv(maps, depthwise[0], implementation=implementation)
    return add_bias(maps, depthwise[1])


def _padded_ahead(images: Array, expand: _Layer, depthwise: _Layer) -> Array:
    one, zero = jnp.ones((), images.dtype), jnp.zeros((), images.dtype)
    with_ones = lax.pad(images, one, ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 1, 0)))
    padded = lax.pad(with_ones, zero, ((0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)))
    maps = pointwise_conv(padded, jnp.concatenate([expand[0], expand[1][None]]))
    return add_bias(shift.convolve_padded(maps, depthwise[0]), depthwise[1])
