"""Losses of classification: cross-entropy and focal loss, of one label an image or of several.

Of one label, targets sum to one over the classes. Of several, each class is a decision of its own,
and the loss of an example is the mean over the classes, as in PyTorch's ``BCEWithLogitsLoss``.

Focal loss (arXiv 1708.02002, eq. 4) multiplies each term by (1 - p) ** gamma, with p the
probability that the model gives to what the term asks for; without its alpha.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float


def softmax_losses(
    logits: Float[Array, "batch classes"],
    targets: Float[Array, "batch classes"],
    *,
    gamma: float = 0.0,
    class_weights: Float[np.ndarray, " classes"] | None = None,
) -> Float[Array, " batch"]:
    """Return - sum_c w_c t_c (1 - p_c) ** gamma log p_c of each example, p the softmax.

    With weights this is PyTorch's ``CrossEntropyLoss(weight=w)`` for targets of probabilities.

    Args:
      logits: (B, K) float32.
      targets: (B, K), each row summing to one.
      gamma: of the focal loss; 0 is the cross-entropy.
      class_weights: w; None is one for all.
    """
    if not gamma and class_weights is None:
        return optax.softmax_cross_entropy(logits, targets)
    log_p = jax.nn.log_softmax(logits)
    terms = -targets * log_p
    if gamma:
        terms *= _to_the_power(-jnp.expm1(log_p), gamma)
    if class_weights is not None:
        terms *= jnp.asarray(class_weights, jnp.float32)[None, :]
    return jnp.sum(terms, axis=1)


def sigmoid_losses(
    logits: Float[Array, "batch classes"],
    targets: Float[Array, "batch classes"],
    *,
    gamma: float = 0.0,
    positive_weights: Float[np.ndarray, " classes"] | None = None,
) -> Float[Array, " batch"]:
    """Return the mean over classes of the binary losses of each example.

        - w_c t_c (1 - p_c) ** gamma log p_c - (1 - t_c) p_c ** gamma log (1 - p_c)

    Args:
      logits: (B, K) float32.
      targets: (B, K) in [0, 1].
      gamma: of the focal loss; 0 is the binary cross-entropy.
      positive_weights: w, as PyTorch's ``pos_weight``; None is one for all.
    """
    log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive, negative = -targets * log_p, -(1.0 - targets) * log_not_p
    if gamma:
        positive *= _to_the_power(jnp.exp(log_not_p), gamma)
        negative *= _to_the_power(jnp.exp(log_p), gamma)
    if positive_weights is not None:
        positive *= jnp.asarray(positive_weights, jnp.float32)[None, :]
    return jnp.mean(positive + negative, axis=1)


def balanced_weights(counts: Float[np.ndarray, " classes"]) -> np.ndarray:
    """Return N / (K n_c), as scikit-learn's "balanced": all classes weigh alike in a sum.

    Args:
      counts: n_c, examples of each class; classes without one have the weight of one example.
    """
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def balanced_positive_weights(counts: Float[np.ndarray, " classes"], total: int) -> np.ndarray:
    """Return (N - n_c) / n_c: the label and its absence weigh alike in a sum.

    Args:
      counts: n_c, examples with each label.
      total: N, all examples.
    """
    there = np.maximum(counts, 1)
    return (np.maximum(total - there, 1) / there).astype(np.float32)


def _to_the_power(base: Array, gamma: float) -> Array:
    """Return base ** gamma for base in [0, 1], with a finite gradient at 0 for gamma below 1."""
    return jnp.power(jnp.maximum(base, jnp.finfo(jnp.float32).tiny), jnp.float32(gamma))
