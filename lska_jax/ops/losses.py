"""Losses of detectors, entry by entry and without reduction, in float32.

What they are divided by differs from head to head, and stands there.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def binary_cross_entropy(
    logits: Float[Array, "*shape"], targets: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return -t log(p) - (1 - t) log(1 - p) with p = sigmoid(logits).

    Args:
      logits: any shape.
      targets: in [0, 1].
    """
    logits = logits.astype(jnp.float32)
    return jnp.maximum(logits, 0.0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def focal_loss(
    logits: Float[Array, "*shape"],
    targets: Float[Array, "*shape"],
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Float[Array, "*shape"]:
    """Return the focal loss of sigmoids (arXiv 1708.02002).

        (alpha t + (1 - alpha) (1 - t)) (p (1 - t) + (1 - p) t)^gamma BCE(p, t)

    Args:
      logits: any shape.
      targets: 0 or 1.
      gamma: how much entries that are right count less.
      alpha: weight of the ones; zeros have 1 - alpha.
    """
    logits = logits.astype(jnp.float32)
    # 1 - p of the right answer, as a sigmoid of its own: 1 - sigmoid(x) loses digits.
    wrong = jax.nn.sigmoid(jnp.where(targets > 0.5, -logits, logits))
    weights = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    return weights * wrong**gamma * binary_cross_entropy(logits, targets)


def cross_entropy(
    logits: Float[Array, "*rows classes"], labels: jax.Array
) -> Float[Array, "*rows"]:
    """Return -log softmax(logits) at the labels.

    Args:
      logits: (..., K).
      labels: (...) integers from 0 to K - 1.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
