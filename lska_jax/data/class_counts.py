"""How many examples each class has, and drawing classes evenly however many they have."""

from __future__ import annotations

import dataclasses

import numpy as np

from lska_jax.data.class_folders import show_progress
from lska_jax.data.sources import BrokenImage, Source


def labels_of(source: Source) -> np.ndarray:
    """Return the labels of all examples, (N,) or (N, K); -1 of broken ones.

    Sources that do not keep their labels are read once, example by example.
    """
    known = getattr(source, "labels", None)
    if known is not None:
        return np.asarray(known)
    return np.array(
        [
            _label(source, n)
            for n in show_progress(range(len(source)), source.name, "labels", len(source))
        ]
    )


def count_classes(source: Source) -> np.ndarray:
    """Return how many examples each class has: (K,) whole numbers."""
    labels = labels_of(source)
    if labels.ndim > 1:
        return labels.sum(axis=0)
    return np.bincount(labels[labels >= 0], minlength=len(source.class_names))


@dataclasses.dataclass(frozen=True)
class BalancedDraw:
    """Draws a class, each as likely, then one of its examples; with replacement.

    The expected share of every class is the same, as with PyTorch's ``WeightedRandomSampler`` at
    weights of one over the class's examples.

    Attributes:
      members: positions of the examples of each class that has any.
    """

    members: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, source: Source) -> BalancedDraw:
        """Return the draw from a source of one label an image."""
        labels = labels_of(source)
        return cls(
            tuple(np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0]))
        )

    def __call__(self, rng: np.random.Generator) -> int:
        """Return the position of an example."""
        of_class = self.members[rng.integers(len(self.members))]
        return int(of_class[rng.integers(len(of_class))])


def _label(source: Source, index: int) -> int:
    try:
        return source[index].label
    except BrokenImage:
        return -1
