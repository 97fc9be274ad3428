"""RetinaNet (arXiv 1708.02002) as facts: fields and checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lska_jax.models.checks import check_counts, check_range
from lska_jax.models.heads import Head, HeadConfig
from lska_jax.models.table import Preprocessing

# Of ImageNet's pixels; images keep their shape, within 800 x 1333 pixels as recipes for COCO do.
DETECTION_PREPROCESSING = Preprocessing(
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
    image_size=800,
    crop_pct=1.0,
    interpolation="bilinear",
    crop_mode="whole",
    long_side=1333,
)
COCO_CLASSES = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorConfig(HeadConfig):
    """The fields that heads of detectors share.

    Attributes:
      pyramid_channels: of the feature pyramid, and of the convolutions of the heads.
      score_threshold: a detection's score is above it.
      nms_threshold: overlap above which a detection suppresses others of its class.
      max_detections: of an image.
    """

    pyramid_channels: int = 256
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


def check_detector(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``DetectorConfig``, one sentence each."""
    return [
        *check_counts(fields, ("pyramid_channels", "max_detections"), low=1),
        *check_range("score_threshold", fields["score_threshold"], low=0, below=1),
        *check_range("nms_threshold", fields["nms_threshold"], low=0, high=1),
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetinaNetConfig(DetectorConfig):
    """The fields of the head, with those of ``DetectorConfig``.

    Attributes:
      tower_depth: convolutions ahead of the last one, of classes and of boxes each.
      candidates: of each level, at most, that suppression sees.
    """

    tower_depth: int = 4
    candidates: int = 1000


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of the head, one sentence each."""
    return [
        *check_detector(fields),
        *check_counts(fields, ("tower_depth",), low=0),
        *check_counts(fields, ("candidates",), low=1),
    ]


HEAD = Head(
    name="retinanet",
    title="RetinaNet",
    task="detection",
    config=RetinaNetConfig,
    network="lska_jax.models.dense.retinanet:RetinaNet",
    check=check,
    summary=(
        "A detector: RetinaNet ([arXiv 1708.02002](https://arxiv.org/abs/1708.02002)) for lska_jax."
    ),
    classes=("class_head/last/kernel", "class_head/last/bias"),
    num_classes=COCO_CLASSES,
    names="lska_jax.weights.names.detectors:RETINANET",
    preprocessing=DETECTION_PREPROCESSING,
)
