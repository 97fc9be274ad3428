"""Windows of maps, and attention within them, as Swin has it (arXiv 2103.14030, section 3.2).

    y_h = softmax(q_h k_h^T / sqrt(d) + bias_h + mask) v_h        for every window and head h

Written out rather than ``jax.nn.dot_product_attention``, which wants the mask of every window of
every image, and on CPU takes longer for the same numbers. The softmax is float32.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from lska_jax.models.swin_config import Windows
from lska_jax.ops.platform import vary_alike
from lska_jax.ops.reverse_mode import reverse_mode_only

# Added to the logits of pixels that must not see each other.
MASKED = -100.0


def split_into_windows(
    maps: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch windows pixels channels"]:
    """Cut maps (B, H, W, C), padded with zeros at bottom and right, into windows (B, N, side^2, C).

    Windows and the pixels of a window are in rows.
    """
    batch, height, width, channels = maps.shape
    rows, columns = -(-height // side), -(-width // side)
    padding = ((0, 0), (0, rows * side - height), (0, columns * side - width), (0, 0))
    cut = jnp.pad(maps, padding).reshape(batch, rows, side, columns, side, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, side**2, channels)


def join_windows(
    windows: Float[Array, "batch windows pixels channels"], side: int, height: int, width: int
) -> Float[Array, "batch height width channels"]:
    """Undo ``split_into_windows`` for maps of a height and width."""
    batch, *_, channels = windows.shape
    rows, columns = -(-height // side), -(-width // side)
    cut = windows.reshape(batch, rows, columns, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]


@functools.lru_cache(maxsize=64)
def shift_mask(
    height: int, width: int, windows: Windows
) -> Float[np.ndarray, "windows pixels pixels"]:
    """Return what is added to the logits of shifted windows: pixels from both ends are strangers.

    A map that was rolled has its first rows behind its last ones, and alike its columns.

    Args:
      height: of the maps.
      width: of the maps.
      windows: of the stage.

    Returns:
      (N, side^2, side^2) float32: 0 where two pixels of a window are neighbours, else ``MASKED``.
    """

    def regions(length: int) -> np.ndarray:
        padded = -(-length // windows.side) * windows.side
        # Two cuts: where the last window begins, and where what was rolled does.
        cuts = np.array([[padded - windows.side], [padded - windows.shift]])
        return np.sum(np.arange(padded) >= cuts, axis=0)

    region = 3 * regions(height)[:, None] + regions(width)
    rows, columns = (n // windows.side for n in region.shape)
    cut = region.reshape(rows, windows.side, columns, windows.side).transpose(0, 2, 1, 3)
    of_pixels = cut.reshape(rows * columns, windows.side**2)
    is_same = of_pixels[:, :, None] == of_pixels[:, None, :]
    return np.where(is_same, 0.0, MASKED).astype(np.float32)


def relative_bias(
    table: Float[Array, "distances heads"], side: int
) -> Float[Array, "heads pixels pixels"]:
    """Return the bias of each pair of pixels of a window, from that of each distance.

        bias[h, (i, j), (k, l)] = table[(i - k + side - 1, j - l + side - 1), h]

    Slices in place of a gather, whose gradient would be a scatter: slow on CPU and TPU, and summed
    in any order on GPU.

    Args:
      table: ((2 side - 1)^2, heads), rows of distances.
      side: of the windows.

    Returns:
      (heads, side^2 of the query, side^2 of the key).
    """
    span, heads = 2 * side - 1, table.shape[1]
    # Turned round, distances grow with the key's place.
    turned = table[::-1].T.reshape(heads, span, span)
    starts = range(side - 1, -1, -1)
    rows = jnp.stack([turned[:, start : start + side] for start in starts], axis=1)
    both = jnp.stack([rows[..., start : start + side] for start in starts], axis=2)
    return both.reshape(heads, side**2, side**2)


@reverse_mode_only
def attend_within_windows(
    qkv: Float[Array, "batch windows pixels channels_3"],
    bias: Float[Array, "heads pixels pixels"],
    mask: Float[np.ndarray | Array, "windows pixels pixels"] | None = None,
) -> Float[Array, "batch windows pixels channels"]:
    """Return what every pixel gathers from its window, heads side by side.

    For the backward pass only ``qkv``, ``bias``, the result and a number for each pixel and head
    are kept; the weights of all pairs are computed again (FlashAttention, arXiv 2205.14135,
    section 3.1).

    Args:
      qkv: (B, N, P, 3C), queries, keys and values one after the other, each head after head.
      bias: (heads, P, P) float32, of each query and key.
      mask: (N, P, P) float32, added alike; it has no gradient.

    Returns:
      (B, N, P, C) in the dtype of ``qkv``; the softmax, the sums of products and the gradient of
      ``bias`` are float32. Gradients are reverse mode.
    """
    return _attend(*vary_alike((qkv, bias)), None if mask is None else jnp.asarray(mask))


def window_weights(
    qkv: Float[Array, "batch windows pixels channels_3"],
    bias: Float[Array, "heads pixels pixels"],
    mask: Float[np.ndarray | Array, "windows pixels pixels"] | None = None,
) -> Float[Array, "batch windows heads pixels pixels"]:
    """Return the softmax's weights, float32; arguments as ``attend_within_windows``."""
    query, key, _ = _split(qkv, len(bias))
    mask = None if mask is None else jnp.asarray(mask)
    return jax.nn.softmax(_logits(query, key, bias, mask), axis=-1)


@jax.custom_vjp
def _attend(qkv: Array, bias: Array, mask: Array | None) -> Array:
    return _forward(qkv, bias, mask)[0]


def _forward(qkv: Array, bias: Array, mask: Array | None) -> tuple[Array, tuple[Any, ...]]:
    query, key, value = _split(qkv, len(bias))
    logits = _logits(query, key, bias, mask)
    highest = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # Divided behind the product, which has fewer entries than the weights.
    out = _merge(_product(weights.astype(qkv.dtype), value, (4, 3)) / total).astype(qkv.dtype)
    return out, (qkv, bias, mask, out, highest + jnp.log(total))


def _backward(residuals: tuple[Any, ...], gradient: Array) -> tuple[Array, Array, None]:
    # The barrier keeps XLA from finding the weights of the forward pass again, and keeping them.
    qkv, bias, mask, out, log_total, gradient = lax.optimization_barrier((*residuals, gradient))
    query, key, value = _split(qkv, len(bias))
    weights = jnp.exp(_logits(query, key, bias, mask) - log_total)
    along = _heads_in_front(gradient, len(bias))
    both = gradient.astype(jnp.float32) * out.astype(jnp.float32)
    # The gradient of the softmax: weights times what a weight's slope has over their mean.
    mean = jnp.sum(_heads_in_front(both, len(bias)), axis=-1, keepdims=True)
    slope = weights * (_product(along, value, (4, 4)) - mean)
    narrow = slope.astype(qkv.dtype)
    parts = (
        _product(narrow, key, (4, 3)) * _scale(query),
        _product(narrow, query, (3, 3)),
        _product(weights.astype(qkv.dtype), along, (3, 3)),
    )
    qkv_gradient = jnp.concatenate([_merge(part) for part in parts], axis=-1).astype(qkv.dtype)
    return qkv_gradient, jnp.sum(slope, axis=(0, 1)).astype(bias.dtype), None


_attend.defvjp(_forward, _backward)


def _split(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
    """Return queries, scaled, keys and values, each (B, N, heads, P, d)."""
    *outer, pixels, channels = qkv.shape
    split = qkv.reshape(*outer, pixels, 3, heads, channels // (3 * heads))
    query, key, value = jnp.moveaxis(split, (3, 4), (0, 3))
    # Not the logits: XLA's CPU backend would read the factor from an array as large as they are.
    return (query.astype(jnp.float32) * _scale(query)).astype(query.dtype), key, value


def _scale(query: Array) -> Array:
    return jnp.float32(1 / math.sqrt(query.shape[-1]))


def _logits(query: Array, key: Array, bias: Array, mask: Array | None) -> Array:
    logits = _product(query, key, (4, 4)) + bias[None, None]
    return logits if mask is None else logits + mask[None, :, None]


def _heads_in_front(x: Array, heads: int) -> Array:
    """Return (B, N, P, C) as (B, N, heads, P, d)."""
    return jnp.swapaxes(x.reshape(*x.shape[:3], heads, x.shape[3] // heads), 2, 3)


def _merge(x: Array) -> Array:
    """Return (B, N, heads, P, d) as (B, N, P, C)."""
    batch, windows, heads, pixels, channels = x.shape
    return jnp.swapaxes(x, 2, 3).reshape(batch, windows, pixels, heads * channels)


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Return a product over one axis of each, for every window and head, float32."""
    numbers = (((axes[0],), (axes[1],)), ((0, 1, 2), (0, 1, 2)))
    return lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)
