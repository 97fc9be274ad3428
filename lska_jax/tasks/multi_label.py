"""Classification with any number of labels an image: binary losses and mean average precision."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lska_jax.data.class_counts import count_classes
from lska_jax.data.sources import Source
from lska_jax.nn.functional import FlatArrays, ModelFunctions
from lska_jax.tasks.average_precision import mean_average_precision
from lska_jax.tasks.classification import Classification
from lska_jax.tasks.losses import balanced_positive_weights, sigmoid_losses
from lska_jax.tasks.task import Batch, Best


class Scores(NamedTuple):
    """What evaluation keeps of some examples.

    Attributes:
      logits: (N, K) float32.
      labels: (N, K) of 0 and 1.
      mask: (N,), False for rows that count nothing.
    """

    logits: jax.Array | np.ndarray
    labels: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray


class MultiLabelClassification(Classification):
    """Images with any number of labels; each label is a yes or a no of its own."""

    best = Best("mean_average_precision")
    is_multi_label = True

    def _balanced_weights(self, source: Source) -> np.ndarray:
        return balanced_positive_weights(count_classes(source).astype(np.float64), len(source))

    def _losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        return sigmoid_losses(
            logits, targets, gamma=self._gamma, positive_weights=self._class_weights
        )

    def measure(  # type: ignore[override]
        self, functions: ModelFunctions, params: FlatArrays, stats: FlatArrays, batch: Batch
    ) -> Scores:
        """Return logits and labels: precision needs all of them, in order."""
        logits = self._evaluate(functions, params, stats, batch["image"])
        return Scores(logits.astype(jnp.float32), batch["label"], batch["mask"])

    def add(self, total: Scores, part: Scores) -> Scores:
        """Put the examples of another batch behind those before."""
        return Scores(*(np.concatenate(pair) for pair in zip(total, part, strict=True)))

    def means(self, total: Scores) -> dict[str, float]:  # type: ignore[override]
        """Return mean_average_precision in [0, 1] and the binary cross-entropy.

        Raises:
          ValueError: no example was counted, or none has a label.
        """
        counted = np.asarray(total.mask, bool)
        if not counted.any():
            raise ValueError("No example was counted: every image was masked out or missing.")
        logits = np.asarray(total.logits, np.float32)[counted]
        labels = np.asarray(total.labels)[counted]
        losses = sigmoid_losses(jnp.asarray(logits), jnp.asarray(labels, jnp.float32))
        return {
            "mean_average_precision": mean_average_precision(logits, labels > 0),
            "loss": float(np.mean(np.asarray(losses, np.float64))),
        }

    def describe(self, means: Mapping[str, float]) -> str:
        """Return the precision in percent, and the loss."""
        return f"mAP {100 * means['mean_average_precision']:.2f} %, loss {means['loss']:.4g}"
