"""IoU and accuracy of segmentations, from areas summed over a whole set.

    IoU = intersection / union        Acc = intersection / label area

per class; mIoU and mAcc are their means over the classes that occur, aAcc is the part of all
labelled pixels that is right. Pixels without a label count nowhere, in the prediction neither. A
class that is in no label but is predicted has IoU 0 and no accuracy; one in neither is left out.
Means of the IoU of single images or batches would be another quantity.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from lska_jax.data.scenes import IGNORED_LABEL


class Areas(NamedTuple):
    """Pixels of each class, (K,) each; add them up over images.

    Attributes:
      intersection: predicted and labelled alike.
      predicted: predicted, where there is a label.
      labelled: labelled.
    """

    intersection: Int[Array | np.ndarray, " classes"]
    predicted: Int[Array | np.ndarray, " classes"]
    labelled: Int[Array | np.ndarray, " classes"]


class Scores(NamedTuple):
    """What areas come to.

    Attributes:
      iou: (K,) of each class, NaN where it is in neither prediction nor label.
      accuracy: (K,) of each class, NaN where it is in no label.
      mean_iou: over the classes that have one.
      mean_accuracy: likewise.
      all_accuracy: over all labelled pixels.
    """

    iou: Float[np.ndarray, " classes"]
    accuracy: Float[np.ndarray, " classes"]
    mean_iou: float
    mean_accuracy: float
    all_accuracy: float


def areas_of(
    predicted: Integer[Array, "*pixels"], labels: Integer[Array, "*pixels"], *, num_classes: int
) -> Areas:
    """Return the areas of some images.

    Args:
      predicted: classes, in [0, num_classes).
      labels: likewise, or 255 where there is none.
      num_classes: K.
    """
    # What counts nowhere goes behind the last class.
    is_labelled = labels != IGNORED_LABEL
    labels, predicted = labels.astype(jnp.int32), predicted.astype(jnp.int32)

    def count(classes: Array, is_counted: Array) -> Array:
        binned = jnp.where(is_counted, classes, num_classes).ravel()
        return jnp.bincount(binned, length=num_classes + 1)[:num_classes].astype(jnp.int32)

    return Areas(
        count(labels, is_labelled & (predicted == labels)),
        count(predicted, is_labelled),
        count(labels, is_labelled),
    )


def scores_of(areas: Areas) -> Scores:
    """Return the scores of summed areas.

    Raises:
      ValueError: no pixel has a label.
    """
    intersection, predicted, labelled = (np.asarray(part, np.float64) for part in areas)
    if not labelled.sum():
        raise ValueError("No pixel was counted: no image has a label, or all are broken.")
    union = predicted + labelled - intersection
    with np.errstate(invalid="ignore"):
        iou, accuracy = intersection / union, intersection / labelled
    return Scores(
        iou,
        accuracy,
        float(np.nanmean(iou)),
        float(np.nanmean(accuracy)),
        float(intersection.sum() / labelled.sum()),
    )


def absent_classes(areas: Areas, class_names: Sequence[str]) -> list[str]:
    """Return the names of classes that are in neither prediction nor label."""
    seen = np.asarray(areas.predicted) + np.asarray(areas.labelled)
    return [name for name, count in zip(class_names, seen.tolist(), strict=True) if not count]
