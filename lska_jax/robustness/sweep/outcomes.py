"""What a model says about each image: the one compiled function of a sweep.

The same program serves every cell of a model. Class subsets and the groups of the cue conflict are
its arguments, so that ImageNet-A's 200 logits cost no second compilation.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8

from lska_jax.data.mixing import normalise
from lska_jax.robustness.cells import Outcomes
from lska_jax.robustness.sweep.classifier import Classifier
from lska_jax.running import parallel

TOP = 5
NOT_FINITE = -1


def outcomes_of_logits(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    *,
    subsets: Bool[Array, "subsets classes"],
    groups: Float[Array, "groups classes"],
) -> Outcomes:
    """Return what logits say about each image.

    Args:
      logits: (B, K).
      labels: (B,) int32 in [0, K).
      subsets: (Q, K), which classes belong to each subset.
      groups: (G, K), row g holds 1 / (size of group g) for its classes, 0 elsewhere: the decision
        of Geirhos et al. (arXiv 1811.12231) takes the mean over a group's probabilities.
    """
    logits = logits.astype(jnp.float32)
    is_finite = jnp.all(jnp.isfinite(logits), axis=1)
    logits = jnp.where(is_finite[:, None], logits, 0.0)
    within = jnp.where(subsets[None], logits[:, None, :], -jnp.inf)
    log_probabilities = jax.nn.log_softmax(within, axis=-1)
    of_label = jnp.take_along_axis(log_probabilities, labels[:, None, None], axis=-1)[..., 0]
    means = jnp.einsum(
        "bk,gk->bg", jax.nn.softmax(logits), groups, precision=jax.lax.Precision.HIGHEST
    )
    _, top = jax.lax.top_k(logits, TOP if logits.shape[1] > TOP else 1)
    known = is_finite[:, None]
    return Outcomes(
        prediction=jnp.where(known, jnp.argmax(within, axis=-1), NOT_FINITE).astype(jnp.int32),
        confidence=jnp.where(known, jnp.exp(jnp.max(log_probabilities, axis=-1)), 0.0),
        nll=jnp.where(known, -of_label, jnp.inf),
        top5=jnp.where(known, top, NOT_FINITE).astype(jnp.int32),
        group=jnp.where(is_finite, jnp.argmax(means, axis=-1), NOT_FINITE).astype(jnp.int32),
    )


class OutcomeFunction:
    """A classifier compiled once, for one batch size, to be called with uint8 images."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        mesh: Mesh,
        batch_size: int,
        subsets: Sequence[np.ndarray],
        groups: Sequence[np.ndarray],
    ):
        """Compile.

        Args:
          classifier: the model.
          mesh: all devices; the batch is split over them.
          batch_size: images of a batch, over all devices.
          subsets: class indices of each subset besides that of all classes.
          groups: class indices of each group; none makes every decision 0.
        """
        everything = np.arange(classifier.num_classes)
        subset_rows = _rows([everything, *subsets], classifier.num_classes) > 0
        group_rows = _rows(groups or [everything], classifier.num_classes)
        group_rows /= group_rows.sum(axis=1, keepdims=True)
        whole = parallel.replicated(mesh)
        self._variables = jax.tree.map(
            lambda leaf: parallel.place(leaf, whole), classifier.variables
        )
        size = classifier.preprocessing.image_size
        rows = parallel.batch_sharding(mesh)
        arguments = (
            self._variables,
            jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.uint8, sharding=rows),
            jax.ShapeDtypeStruct((batch_size,), jnp.int32, sharding=rows),
            jax.ShapeDtypeStruct(subset_rows.shape, jnp.bool_, sharding=whole),
            jax.ShapeDtypeStruct(group_rows.shape, jnp.float32, sharding=whole),
        )
        # Every process gets the outcomes of every image.
        step = jax.jit(functools.partial(_step, classifier=classifier), out_shardings=whole)
        with jax.set_mesh(mesh):
            self._compiled = step.lower(*arguments).compile()
        self._subsets = parallel.place(subset_rows, whole)
        self._groups = parallel.place(group_rows, whole)

    def __call__(self, images: jax.Array, labels: jax.Array) -> Outcomes:
        """Return the outcomes of one batch: images (B, S, S, 3) uint8, labels (B,) int32."""
        return self._compiled(self._variables, images, labels, self._subsets, self._groups)


def collect(batches: Sequence[Outcomes], keep: np.ndarray) -> Outcomes:
    """Join the outcomes of batches on the host.

    Args:
      batches: in order.
      keep: (N,) bool over all their rows, False for padding and broken images.
    """
    host = jax.device_get(list(batches))
    return Outcomes(*(np.concatenate(parts)[keep] for parts in zip(*host, strict=True)))


def _step(
    variables: Any,
    images: UInt8[Array, "batch height width 3"],
    labels: Int[Array, " batch"],
    subsets: Bool[Array, "subsets classes"],
    groups: Float[Array, "groups classes"],
    *,
    classifier: Classifier,
) -> Outcomes:
    prepared = classifier.preprocessing
    logits = classifier.logits(variables, normalise(images, mean=prepared.mean, std=prepared.std))
    return outcomes_of_logits(logits, labels, subsets=subsets, groups=groups)


def _rows(index_lists: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
    rows = np.zeros((len(index_lists), num_classes), np.float32)
    for row, indices in zip(rows, index_lists, strict=True):
        row[indices] = 1.0
    return rows
