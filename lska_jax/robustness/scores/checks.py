"""What every score asks of its arrays, and the words in which it refuses others."""

import numpy as np


def check_lengths(**arrays: np.ndarray) -> int:
    """Return the common length of arrays with one entry an image.

    Raises:
      ValueError: an array is empty, not one-dimensional, or as long as no other.
    """
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    if any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(
            f"Shapes {_listed(shapes)}: every array holds one value an image, so it has one axis; "
            "pass one set of images at a time."
        )
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"Lengths differ: {_listed(shapes)}. Entry i of each belongs to image i; leave an "
            "unreadable image out of all of them."
        )
    (count,) = next(iter(shapes.values()))
    if count == 0:
        raise ValueError(
            f"No images: {', '.join(shapes)} is empty. A score needs at least one; record a set "
            "without images as missing."
        )
    return int(count)


def check_outcomes(name: str, outcomes: np.ndarray) -> None:
    """Check that an array of any shape says right or wrong.

    Raises:
      ValueError: a value is neither 0 nor 1.
    """
    if outcomes.dtype == np.bool_:
        return
    wrong = ~np.isin(outcomes, (0, 1))
    if wrong.any():
        raise ValueError(
            f"{name} holds {outcomes[wrong].flat[0]}: only 1 (right) and 0 (wrong) are allowed. "
            "Compare predictions with labels first."
        )


def check_probabilities(name: str, values: np.ndarray) -> None:
    """Check that all values of an array of any shape are finite and in [0, 1].

    Raises:
      ValueError: one is not.
    """
    if np.isnan(values).any():
        count = int(np.isnan(values).sum())
        raise ValueError(
            f"{name} has {count} NaN of {values.size}: the model's logits were not finite. Find "
            "the images, or run the model in float32; a score over the rest would flatter it."
        )
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise ValueError(
            f"{name} holds {values[outside].flat[0]}, which is outside [0, 1]. Pass softmax "
            "probabilities, not logits, and fractions, not percent."
        )


def check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Check that all values of an integer array of any shape are in [0, num_classes).

    Raises:
      ValueError: they are no integers, or one is outside.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{name} is {labels.dtype}: class indices are integers; cast them first.")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise ValueError(
            f"{name} holds {labels[outside].flat[0]}, which is outside the label set 0 to "
            f"{num_classes - 1}. Map the set's own labels to the model's classes first."
        )


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
