"""Does the answer flip while the image hardly changes: ImageNet-P.

A video is one image, perturbed a little more (or anew) in every frame. Source: Hendrycks and
Dietterich, arXiv 1903.12261, section 4.2, and github.com/hendrycks/robustness, ImageNet-P/test.py.

The frames of a noise video are drawn anew from its clean first frame, so all are compared with that
one; the frames of any other video are compared with the one before.

The paper also divides by AlexNet's values (mean flip rate, mT5D). Its code does not hold them and
no public source for them was found, so that ratio is left out: what is here is not normalised.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from lska_jax.robustness.scores.checks import check_labels
from lska_jax.robustness.scores.corruption_error import MissingCells

PERTURBATIONS = (
    "gaussian_noise",
    "shot_noise",
    "motion_blur",
    "zoom_blur",
    "snow",
    "brightness",
    "translate",
    "rotate",
    "tilt",
    "scale",
)
TOP = 5


def is_noise(perturbation: str) -> bool:
    """Return whether the frames of a perturbation's videos are compared with the first one."""
    return "noise" in perturbation


def flip_probabilities(
    predictions: Int[np.ndarray, "videos frames"], *, noise: bool, num_classes: int = 1000
) -> Float[np.ndarray, " videos"]:
    """Return for each video the share of frames whose class differs from that of its reference.

    Args:
      predictions: (V, F) predicted classes, frames in order, at least two.
      noise: whether the reference is the first frame, see ``is_noise``; else it is the previous.
      num_classes: classes of the model.

    Returns:
      (V,) float64 in [0, 1]; its mean is the flip probability.

    Raises:
      ValueError: no videos, fewer than two frames, classes outside the label set.
    """
    _check_frames("predictions", predictions, axes=2)
    check_labels("predictions", predictions, num_classes)
    reference = predictions[:, :1] if noise else predictions[:, :-1]
    flips: np.ndarray = (predictions[:, 1:] != reference).mean(axis=1)
    return flips


def top5_distances(
    top5: Int[np.ndarray, "videos frames 5"], *, noise: bool, num_classes: int = 1000
) -> Float[np.ndarray, " videos"]:
    """Return for each video the mean top-5 distance of its frames from their references.

    The distance of two frames is sum_(i=1..5) |min(r_i, 6) - i|, where r_i is the rank in one frame
    of the class that is ith in the other: 0 for the same five in the same order, 15 for five
    others.

    Args:
      top5: (V, F, 5) the five most likely classes of each frame, the likeliest first.
      noise: whether the reference is the first frame, see ``is_noise``; else it is the previous.
      num_classes: classes of the model.

    Returns:
      (V,) float64 in [0, 15]; its mean is the top-5 distance.

    Raises:
      ValueError: no videos, fewer than two frames, classes outside the label set, not five
        different classes in a frame.
    """
    _check_frames("top5", top5, axes=3)
    check_labels("top5", top5, num_classes)
    ordered = np.sort(top5, axis=-1)
    if top5.shape[-1] != TOP or (ordered[..., 1:] == ordered[..., :-1]).any():
        raise ValueError(
            f"top5 has shape {top5.shape}, or one class twice in a frame: the last axis holds the "
            "five most likely classes, all different. Take them from the sorted logits."
        )
    reference = top5[:, :1] if noise else top5[:, :-1]
    # is_same[..., i, j]: the reference's class i is the frame's class j.
    is_same = reference[..., :, None] == top5[:, 1:, None, :]
    rank = np.where(is_same.any(axis=-1), is_same.argmax(axis=-1), TOP)
    distance = np.abs(rank - np.arange(TOP)).sum(axis=-1)
    means: np.ndarray = distance.mean(axis=1)
    return means


def mean_over_perturbations(values: Mapping[str, float], *, score: str) -> float | MissingCells:
    """Return the mean over the ten perturbations of the benchmark, or which of them are missing.

    Args:
      values: perturbation to flip probability or top-5 distance; validation perturbations
        (speckle_noise, gaussian_blur, spatter, shear) may be there and do not count.
      score: its name, for the message.

    Raises:
      ValueError: a value is NaN or negative.
    """
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(
                f"{score} of {name} is {value}: it is at least 0. Leave a perturbation without "
                "videos out, so that it is named as missing."
            )
    missing = tuple((name, 0) for name in PERTURBATIONS if name not in values)
    if missing:
        return MissingCells(f"mean {score} (10 perturbations)", missing)
    return float(np.mean([values[name] for name in PERTURBATIONS]))


def _check_frames(name: str, frames: np.ndarray, *, axes: int) -> None:
    if frames.ndim != axes or frames.shape[0] == 0 or frames.shape[1] < 2:
        raise ValueError(
            f"{name} has shape {frames.shape}: {axes} axes are needed, the first over at least one "
            "video and the second over its frames, two or more; a single frame cannot flip."
        )
