"""Multi-head attention over tokens (arXiv 1706.03762, section 3.2.2).

    y = W_out concat_h(softmax(q_h k_h^T / sqrt(d)) v_h) + b_out,    (q, k, v) = x W + b

Written out rather than ``jax.nn.dot_product_attention``, which on CPU takes half as long again for
the same numbers, and keeps the N x N weights for the backward pass. The softmax is float32.
"""

import functools
import math
from typing import SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.nn.dense import Dense
from lska_jax.nn.initial_values import RngsLike, as_rngs
from lska_jax.ops.plain_numbers import plain_float, plain_int
from lska_jax.ops.reverse_mode import reverse_mode_only


class TokenAttention(nnx.Module):
    """Self-attention: every token attends to all tokens of its image.

    Args:
      channels: C, of input and output.
      heads: that C is divided into; each has d = C / heads channels.
      drop_rate: of the dropout behind the output's product.
      dtype: compute dtype.
      rngs: source of the initial parameters and of the dropout's keys.

    Raises:
      ValueError: the heads do not divide the channels.
    """

    def __init__(
        self,
        channels: SupportsIndex,
        heads: SupportsIndex,
        *,
        drop_rate: SupportsFloat = 0.0,
        dtype: DTypeLike = jnp.float32,
        rngs: RngsLike,
    ):
        channels, heads = plain_int("channels", channels), plain_int("heads", heads)
        rngs, drop_rate = as_rngs(rngs), plain_float("drop_rate", drop_rate)
        if heads < 1 or channels % heads:
            raise ValueError(f"heads={heads} must divide channels={channels}.")
        # One product for queries, keys and values, in this order, as files of PyTorch have it.
        self.qkv = Dense(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.project = Dense(channels, channels, dtype=dtype, rngs=rngs)
        self.dropout = nnx.data(nnx.Dropout(drop_rate, rngs=rngs) if drop_rate > 0 else None)
        self.heads = heads

    def __call__(
        self, x: Float[Array, "batch tokens channels"], *, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch tokens channels"]:
        """Map (B, N, C) to the same shape; ``rngs`` overrides the module's own dropout keys."""
        out = self.project(self_attention(self.qkv(x), heads=self.heads))
        return out if self.dropout is None else self.dropout(out, rngs=rngs)


@reverse_mode_only
def self_attention(
    qkv: Float[Array, "batch tokens channels_3"], *, heads: int
) -> Float[Array, "batch tokens channels"]:
    """Return softmax(q k^T / sqrt(d)) v of every head, side by side.

    For the backward pass only ``qkv`` and a number for each token and head are kept; the N x N
    weights are computed again (FlashAttention, arXiv 2205.14135, section 3.1).

    Args:
      qkv: (B, N, 3C), queries, keys and values one after the other, each head after head.
      heads: that C is divided into.

    Returns:
      (B, N, C) in the dtype of ``qkv``; the softmax, and the sums of products, are float32.
      Gradients are reverse mode.
    """
    return _attend(qkv, heads)


def attention_weights(
    qkv: Float[Array, "batch tokens channels_3"], *, heads: int
) -> Float[Array, "batch heads tokens tokens"]:
    """Return softmax(q k^T / sqrt(d)) of every head, float32; arguments as ``self_attention``."""
    query, key, _ = _split(qkv, heads)
    return jax.nn.softmax(_product(query, key, (3, 3)), axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _attend(qkv: Array, heads: int) -> Array:
    return _forward(qkv, heads)[0]


def _forward(qkv: Array, heads: int) -> tuple[Array, tuple[Array, Array]]:
    query, key, value = _split(qkv, heads)
    logits = _product(query, key, (3, 3))
    highest = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # Divided behind the product, which has fewer entries than the weights.
    out = _merge(_product(weights.astype(qkv.dtype), value, (3, 2)) / total).astype(qkv.dtype)
    return out, (qkv, jnp.swapaxes(highest + jnp.log(total), 2, 3))


def _backward(heads: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    qkv, log_total = residuals
    # Nothing is added, but XLA cannot compute the weights ahead of the gradient, in the forward
    # pass, and keep them; a barrier would not hold it back, which its CPU backend takes out early.
    query, key, value = _split(qkv + 0 * jnp.tile(gradient, 3), heads)
    along = _heads_in_front(gradient, heads)
    # (B, heads, keys, queries): so two of the three last products sum over the last axis.
    weights = jnp.exp(_product(key, query, (3, 3)) - log_total)
    slope = _product(value, along, (3, 3))
    # Of the softmax: the weights times what the slope has over its weighted mean.
    slope = weights * (slope - jnp.sum(weights * slope, axis=2, keepdims=True))
    weights, slope = weights.astype(qkv.dtype), slope.astype(qkv.dtype)
    parts = (
        _product(slope, key, (2, 2)) * _scale(query),
        _product(slope, query, (3, 2)),
        _product(weights, along, (3, 2)),
    )
    return (jnp.concatenate([_merge(part) for part in parts], axis=-1).astype(qkv.dtype),)


_attend.defvjp(_forward, _backward)


def _split(qkv: Array, heads: int) -> tuple[Array, Array, Array]:
    """Return queries, scaled, keys and values, each (B, heads, N, d)."""
    batch, tokens, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    split = qkv.reshape(batch, tokens, 3, heads, channels // heads)
    query, key, value = jnp.moveaxis(split, (2, 3), (0, 2))
    return query * _scale(query).astype(query.dtype), key, value


def _scale(query: Array) -> Array:
    return jnp.float32(1 / math.sqrt(query.shape[-1]))


def _heads_in_front(x: Array, heads: int) -> Array:
    """Return (B, N, C) as (B, heads, N, d)."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[2] // heads), 1, 2)


def _merge(x: Array) -> Array:
    """Return (B, heads, N, d) as (B, N, C)."""
    batch, heads, tokens, channels = x.shape
    return jnp.swapaxes(x, 1, 2).reshape(batch, tokens, heads * channels)


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Return a product over one axis of each, for every image and head, float32."""
    numbers = (((axes[0],), (axes[1],)), ((0, 1), (0, 1)))
    return lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)
