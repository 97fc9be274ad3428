"""Accuracy and loss as sums over examples, exact for padded and sharded batches."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


class EvalSums(NamedTuple):
    """Sums over counted examples; add them up, then call ``means``.

    Attributes:
      examples: () int32, how many were counted.
      top1: () int32, of them with the label ranked first.
      top5: () int32, of them with the label among the first five.
      loss: () float32, sum of the cross-entropies.
    """

    examples: Int[Array, ""]
    top1: Int[Array, ""]
    top5: Int[Array, ""]
    loss: Float[Array, ""]

    @classmethod
    def zero(cls) -> "EvalSums":
        """Return the sums over nothing, on the host."""
        return cls(0, 0, 0, 0.0)  # type: ignore[arg-type]

    def __add__(self, other: "EvalSums") -> "EvalSums":  # type: ignore[override]
        """Add the sums of two sets of examples."""
        return EvalSums(*(a + b for a, b in zip(self, other, strict=True)))

    def means(self) -> dict[str, float]:
        """Return top1, top5 and loss as means over the counted examples, accuracy in [0, 1].

        Raises:
          ValueError: no example was counted.
        """
        count = int(self.examples)
        if count == 0:
            raise ValueError("No example was counted: every image was masked out or missing.")
        return {
            "top1": int(self.top1) / count,
            "top5": int(self.top5) / count,
            "loss": float(self.loss) / count,
        }


def eval_sums(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], mask: Bool[Array, " batch"]
) -> EvalSums:
    """Return the sums of one batch.

    A label's rank is the number of classes with a larger logit; among equal logits the lower class
    index comes first, as in a stable sort. Logits that are not finite count as wrong.

    Args:
      logits: (B, K).
      labels: (B,) int32 in [0, K).
      mask: (B,), False for rows that count nothing.
    """
    logits = logits.astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    is_before = jnp.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = jnp.sum((logits > own) | ((logits == own) & is_before), axis=1)
    is_ranked = mask & jnp.all(jnp.isfinite(logits), axis=1)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return EvalSums(
        examples=jnp.sum(mask, dtype=jnp.int32),
        top1=jnp.sum(is_ranked & (rank < 1), dtype=jnp.int32),
        top5=jnp.sum(is_ranked & (rank < 5), dtype=jnp.int32),
        loss=jnp.sum(jnp.where(mask, losses, 0.0), dtype=jnp.float32),
    )
