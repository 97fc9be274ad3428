"""Shape or texture: Geirhos' cue conflict stimuli.

A stimulus shows the shape of one of 16 classes in the texture of another. Source: Geirhos et al.,
"ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
robustness", arXiv 1811.12231, section 3, and github.com/rgeirhos/texture-vs-shape, whose README
recommends the mean over a shape's classes that the decision is taken by (``sweep.outcomes``).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lska_jax.robustness.scores.checks import check_labels, check_lengths

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


def shape_bias_per_class(
    decisions: Int[np.ndarray, " stimuli"],
    shapes: Int[np.ndarray, " stimuli"],
    textures: Int[np.ndarray, " stimuli"],
    *,
    num_classes: int = SHAPE_CLASSES,
) -> tuple[ShapeBias, ...]:
    """Count for each shape how often decisions follow shape and texture, where the two differ.

    Geirhos' plots show the bias of each; the sums over them are those of all stimuli.

    Args:
      decisions: (N,) decided class of each stimulus.
      shapes: (N,) class of its shape.
      textures: (N,) class of its texture; stimuli with shape == texture are not counted.
      num_classes: classes that are decided between; fewer than 16 for a model of other classes.

    Returns:
      One for each of the num_classes classes, in their order; all zeros where a class has no
      stimuli. The official set has 75 of each.

    Raises:
      ValueError: lengths differ, no stimuli, a class outside 0 to num_classes - 1.
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

    Arguments and errors as in ``shape_bias_per_class``; a stimulus that does not count follows
    neither.
    """
    check_lengths(decisions=decisions, shapes=shapes, textures=textures)
    for name, labels in (("decisions", decisions), ("shapes", shapes), ("textures", textures)):
        check_labels(name, labels, num_classes)
    is_counted = shapes != textures
    return is_counted & (decisions == shapes), is_counted & (decisions == textures), is_counted
