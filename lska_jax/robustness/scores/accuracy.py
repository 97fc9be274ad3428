"""Accuracy in its variants: all logits or those of a subset, one label or a set of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lska_jax.robustness.scores.checks import check_labels, check_lengths, check_outcomes


def accuracy(correct: Shaped[np.ndarray, " images"]) -> float:
    """Return the share of images that are right, a fraction in [0, 1]; higher is better.

    Args:
      correct: (N,) bool or 0 and 1.

    Raises:
      ValueError: no images, an outcome that is not 0 or 1.
    """
    check_lengths(correct=correct)
    check_outcomes("correct", correct)
    return float(np.mean(correct, dtype=np.float64))


def top_k_correct(
    logits: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"], *, k: int
) -> Bool[np.ndarray, " images"]:
    """Return which images have their label among the k largest logits.

    A label's rank is the number of classes with a larger logit; among equal logits the lower class
    comes first. Logits that are not finite count as wrong. The rule of ``lska_jax.evaluation``.

    Args:
      logits: (N, K).
      labels: (N,) in [0, K).
      k: 1 for top-1, 5 for top-5.

    Raises:
      ValueError: no images, lengths differ, labels outside the logits' classes, k outside [1, K].
    """
    _check(logits, labels)
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"k={k}: top-k of {logits.shape[1]} classes needs k from 1 to that.")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    is_before = np.arange(logits.shape[1])[None, :] < labels[:, None]
    rank = np.sum((logits > own) | ((logits == own) & is_before), axis=1)
    is_right: np.ndarray = (rank < k) & np.isfinite(logits).all(axis=1)
    return is_right


def subset_correct(
    logits: Float[np.ndarray, "images classes"],
    labels: Int[np.ndarray, " images"],
    classes: Int[np.ndarray, " subset"],
    *,
    k: int = 1,
) -> Bool[np.ndarray, " images"]:
    """Return which images are right where only a subset's logits compete.

    What the papers of ImageNet-A and ImageNet-R report (arXiv 1907.07174, arXiv 2006.16241: the
    evaluation code cuts the logits to the 200 classes). With all 1000 logits, which is harder, it
    is ``top_k_correct``.

    Args:
      logits: (N, 1000).
      labels: (N,) of the 1000 classes, all within the subset.
      classes: (200,) from ``label_sets.subset_classes``.
      k: how many of the largest logits may hold the label.

    Raises:
      ValueError: as ``top_k_correct``; a label is not in the subset, a class occurs twice in it.
    """
    _check(logits, labels)
    check_labels("classes", classes, logits.shape[1])
    if np.unique(classes).size != classes.size:
        raise ValueError("classes holds a class twice: give each class of the subset once.")
    position = np.full(logits.shape[1], -1)
    position[classes] = np.arange(classes.size)
    if (position[labels] < 0).any():
        outside = labels[position[labels] < 0][0]
        raise ValueError(
            f"labels holds {outside}, which is outside the label set: it is not one of the "
            f"{classes.size} classes of the subset. For clean images take those of "
            "is_in_classes(labels, classes) first."
        )
    return top_k_correct(logits[:, classes], position[labels], k=k)


def is_in_classes(
    labels: Int[np.ndarray, " images"], classes: Int[np.ndarray, " subset"]
) -> Bool[np.ndarray, " images"]:
    """Return which images belong to a subset of the classes: the clean control.

    On clean validation images of the 200 classes of ImageNet-A or -R alone, accuracy with 200
    logits says what the subset costs without any shift (arXiv 1907.07174, arXiv 2006.16241).
    """
    is_member: np.ndarray = np.isin(labels, classes)
    return is_member


def clean_control_accuracy(
    logits: Float[np.ndarray, "images classes"],
    labels: Int[np.ndarray, " images"],
    classes: Int[np.ndarray, " subset"],
    *,
    use_all_logits: bool = False,
) -> float | None:
    """Return top-1 accuracy on the clean images of a subset's classes.

    A fraction in [0, 1], higher is better; None where no image is of these classes. Arguments and
    errors as in ``subset_correct``.

    Args:
      logits: (N, 1000), of the whole clean set.
      labels: (N,).
      classes: (200,).
      use_all_logits: let all 1000 compete.
    """
    _check(logits, labels)
    kept = is_in_classes(labels, classes)
    if not kept.any():
        return None
    if use_all_logits:
        return accuracy(top_k_correct(logits[kept], labels[kept], k=1))
    return accuracy(subset_correct(logits[kept], labels[kept], classes))


def in_set_correct(
    predictions: Int[np.ndarray, " images"],
    label_sets: Sequence[Sequence[int]],
    *,
    num_classes: int = 1000,
) -> Bool[np.ndarray, " kept"]:
    """Return for each image that has labels whether the prediction is one of them.

    Images whose set is empty, on which the raters found no label that fits, are dropped: they are
    in neither part of the fraction. Source: Beyer et al., "Are we done with ImageNet?", arXiv
    2006.07159, and github.com/google-research/reassessed-imagenet.

    Args:
      predictions: (N,) top-1 class.
      label_sets: N lists of labels, some of them empty.
      num_classes: classes of the labels.

    Returns:
      (M,) bool, M at most N; in the order of the images.

    Raises:
      ValueError: no images, lengths differ, a class outside the label set.
    """
    check_lengths(predictions=predictions, label_sets=np.arange(len(label_sets)))
    check_labels("predictions", predictions, num_classes)
    sizes = np.asarray([len(labels) for labels in label_sets])
    flat = np.asarray([label for labels in label_sets for label in labels], dtype=np.int64)
    check_labels("label_sets", flat, num_classes)
    images = np.repeat(np.arange(len(label_sets)), sizes)
    is_hit = np.bincount(images, weights=flat == predictions[images], minlength=len(sizes)) > 0
    return is_hit[sizes > 0]


def in_set_accuracy(
    predictions: Int[np.ndarray, " images"],
    label_sets: Sequence[Sequence[int]],
    *,
    num_classes: int = 1000,
) -> float | None:
    """Return ReaL accuracy: the mean of ``in_set_correct``; None where every set is empty.

    A fraction in [0, 1], higher is better. Arguments and errors as in ``in_set_correct``.
    """
    correct = in_set_correct(predictions, label_sets, num_classes=num_classes)
    return accuracy(correct) if correct.size else None


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2:
        raise ValueError(f"logits has shape {logits.shape}: (images, classes) is needed.")
    check_lengths(labels=labels, logits=logits[:, 0] if logits.shape[1] else logits.ravel())
    check_labels("labels", labels, logits.shape[1])
