"""Shape or texture: Geirhos' cue conflict stimuli.

A stimulus shows the shape of one of 16 classes in the texture of another. Source: Geirhos et al.,
"ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
robustness", arXiv 1811.12231, section 3, and github.com/rgeirhos/texture-vs-shape, whose README
recommends the mean over classes that ``sixteen_class_decision`` takes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from lska_jax.robustness.scores.checks import check_labels, check_lengths, check_probabilities

SHAPE_CLASSES = 16


class ShapeBias(NamedTuple):
    """How often a model followed shape, texture or neither.

    Attributes:
      shape_correct: stimuli decided for their shape.
      texture_correct: stimuli decided for their texture.
      counted: stimuli whose shape and texture differ: 1,200 of the 1,280.
    """

    shape_correct: int
    texture_correct: int
    counted: int

    @property
    def bias(self) -> float | None:
        """Shape bias: shape_correct / (shape_correct + texture_correct), None where both are 0.

        A fraction in [0, 1]; neither end is better. Humans 0.96, ResNet-50 0.21 (the source).
        """
        decided = self.shape_correct + self.texture_correct
        return self.shape_correct / decided if decided else None

    @property
    def decided_fraction(self) -> float | None:
        """(shape_correct + texture_correct) / counted: what the bias rests on. None without any."""
        decided = self.shape_correct + self.texture_correct
        return decided / self.counted if self.counted else None


def sixteen_class_decision(
    probabilities: Float[np.ndarray, "images classes"],
    groups: Mapping[str, Int[np.ndarray, " labels"]],
) -> Int[np.ndarray, " images"]:
    """Return the group with the largest mean probability over its ImageNet classes.

    Among equals the first group, as in the published code. The mean, not the sum, keeps 109 dogs
    from outvoting one knife; the softmax runs over all 1000 classes.

    Args:
      probabilities: (N, 1000) float, softmax.
      groups: name to labels, in the order that numbers them: ``label_sets.shape_classes()``.

    Returns:
      (N,) int64, index into ``groups``.

    Raises:
      ValueError: no images; NaN or a value outside [0, 1]; rows that do not sum to 1; no groups, an
        empty group or a label that the probabilities do not have.
    """
    if probabilities.ndim != 2 or probabilities.shape[0] == 0:
        raise ValueError(
            f"probabilities has shape {probabilities.shape}: (images, classes) with at least one "
            "image is needed."
        )
    check_probabilities("probabilities", probabilities)
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # Rounding each probability to bfloat16 (by 2^-9) moves the sum by 0.2 % at most.
    if (np.abs(sums - 1) > 1e-2).any():
        raise ValueError(
            f"probabilities has a row that sums to {sums[np.argmax(np.abs(sums - 1))]}: a softmax "
            "sums to 1. Take it over all classes before the groups are picked."
        )
    if not groups:
        raise ValueError("No groups: pass label_sets.shape_classes().")
    means = []
    for name, labels in groups.items():
        if labels.size == 0:
            raise ValueError(f"The group {name!r} has no classes: give it one, or leave it out.")
        check_labels(f"The group {name!r}", labels, probabilities.shape[1])
        means.append(probabilities[:, labels].mean(axis=1, dtype=np.float64))
    return np.argmax(np.stack(means, axis=1), axis=1)


def shape_bias(
    decisions: Int[np.ndarray, " stimuli"],
    shapes: Int[np.ndarray, " stimuli"],
    textures: Int[np.ndarray, " stimuli"],
    *,
    num_classes: int = SHAPE_CLASSES,
) -> ShapeBias:
    """Count how often decisions follow shape and texture, over stimuli where the two differ.

    Args:
      decisions: (N,) decided class of each stimulus.
      shapes: (N,) class of its shape.
      textures: (N,) class of its texture; stimuli with shape == texture are not counted.
      num_classes: classes that are decided between; fewer than 16 for a model of other classes.

    Raises:
      ValueError: lengths differ, no stimuli, a class outside 0 to num_classes - 1.
    """
    follows_shape, follows_texture, is_counted = cue_outcomes(
        decisions, shapes, textures, num_classes=num_classes
    )
    return ShapeBias(int(follows_shape.sum()), int(follows_texture.sum()), int(is_counted.sum()))


def shape_bias_per_class(
    decisions: Int[np.ndarray, " stimuli"],
    shapes: Int[np.ndarray, " stimuli"],
    textures: Int[np.ndarray, " stimuli"],
    *,
    num_classes: int = SHAPE_CLASSES,
) -> tuple[ShapeBias, ...]:
    """Return ``shape_bias`` of each shape class alone, as Geirhos' plots show it.

    Arguments and errors as in ``shape_bias``.

    Returns:
      One for each of the num_classes classes, in their order; all zeros where a class has no
      stimuli. The official set has 75 of each.
    """
    outcomes = cue_outcomes(decisions, shapes, textures, num_classes=num_classes)
    counts = [np.bincount(shapes[outcome], minlength=num_classes) for outcome in outcomes]
    return tuple(
        ShapeBias(int(shape), int(texture), int(counted))
        for shape, texture, counted in zip(*counts, strict=True)
    )


def cue_outcomes(
    decisions: Int[np.ndarray, " stimuli"],
    shapes: Int[np.ndarray, " stimuli"],
    textures: Int[np.ndarray, " stimuli"],
    *,
    num_classes: int = SHAPE_CLASSES,
) -> tuple[
    Bool[np.ndarray, " stimuli"], Bool[np.ndarray, " stimuli"], Bool[np.ndarray, " stimuli"]
]:
    """Return which stimuli follow shape, which follow texture and which count.

    Arguments and errors as in ``shape_bias``; a stimulus that does not count follows neither.
    """
    check_lengths(decisions=decisions, shapes=shapes, textures=textures)
    for name, labels in (("decisions", decisions), ("shapes", shapes), ("textures", textures)):
        check_labels(name, labels, num_classes)
    is_counted = shapes != textures
    return is_counted & (decisions == shapes), is_counted & (decisions == textures), is_counted
