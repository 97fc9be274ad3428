"""Which of ImageNet's thousand classes a robustness set uses.

Sources: the lists of WordNet ids in the evaluation code of ImageNet-A and -O
(github.com/hendrycks/natural-adv-examples) and ImageNet-R (github.com/hendrycks/imagenet-r); the 16
shape classes of Geirhos et al., "ImageNet-trained CNNs are biased towards texture", arXiv
1811.12231 (github.com/rgeirhos/texture-vs-shape, human_categories.py). They are stored as class
indices; the ids themselves are ``lska_jax.weights.class_names``'s.
"""

import functools
import json
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Int

from lska_jax.weights import class_names

_SHAPES = "shape_classes"


def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1000 WordNet ids of ImageNet-1K in label order."""
    return class_names.imagenet_wnids()


def subset_classes(name: str) -> Int[np.ndarray, " classes"]:
    """Return the classes of a set that has 200 of the 1000.

    Args:
      name: "imagenet_a", "imagenet_r" or "imagenet_o".

    Returns:
      (200,) int64, ImageNet labels, ascending: the order of the set's own folders, which are named
      by WordNet id.

    Raises:
      ValueError: there is no such subset.
    """
    known = [one for one in _label_sets() if one != _SHAPES]
    if name not in known:
        raise ValueError(
            f"There is no list of classes for {name!r}: only {', '.join(known)} have one. The "
            "other sets use all 1000 classes, the cue conflict set those of shape_classes()."
        )
    return np.asarray(_label_sets()[name], dtype=np.int64)


def shape_classes() -> dict[str, Int[np.ndarray, " classes"]]:
    """Return Geirhos' 16 classes and the ImageNet classes that each stands for.

    Returns:
      Name to ImageNet labels (n,) int64, ascending; in alphabetical order, which numbers the
      classes 0 (airplane) to 15 (truck). 207 labels together, between 1 (knife) and 109 (dog).
    """
    return {
        name: np.asarray(labels, dtype=np.int64) for name, labels in _label_sets()[_SHAPES].items()
    }


@functools.cache
def _label_sets() -> dict[str, Any]:
    file = resources.files("lska_jax.robustness.sets").joinpath("label_sets.json")
    sets: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return sets
