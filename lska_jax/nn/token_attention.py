"""Multi-head attention over tokens (arXiv 1706.03762, section 3.2.2).

    y = W_out concat_h(softmax(q_h k_h^T / sqrt(d)) v_h) + b_out,    (q, k, v) = x W + b

Written out rather than ``jax.nn.dot_product_attention``: that moves queries, keys and values each
on its own, and on CPU takes half as long again for the same numbers. The softmax is float32.
"""

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


def self_attention(
    qkv: Float[Array, "batch tokens channels_3"], *, heads: int
) -> Float[Array, "batch tokens channels"]:
    """Return softmax(q k^T / sqrt(d)) v of every head, side by side.

    Args:
      qkv: (B, N, 3C), queries, keys and values one after the other, each head after head.
      heads: that C is divided into.

    Returns:
      (B, N, C) in the dtype of ``qkv``; products are summed, and the softmax is, in float32.
    """
    batch, tokens, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    split = qkv.reshape(batch, tokens, 3, heads, channels // heads)
    # To (3, B, heads, N, d) in one copy; the batches of both products lie in front.
    query, key, value = jnp.moveaxis(split, (2, 3), (0, 2))
    query = query * jnp.asarray(1 / math.sqrt(channels // heads), query.dtype)
    logits = _product(query, key, (3, 3))
    weights = jax.nn.softmax(logits, axis=-1).astype(qkv.dtype)
    out = _product(weights, value, (3, 2)).astype(qkv.dtype)
    return jnp.moveaxis(out, 1, 2).reshape(batch, tokens, channels)


def _product(a: Array, b: Array, axes: tuple[int, int]) -> Array:
    """Return a batched product over one axis of each, float32."""
    return lax.dot_general(
        a,
        b,
        (((axes[0],), (axes[1],)), ((0, 1), (0, 1))),
        preferred_element_type=jnp.float32,
    )
