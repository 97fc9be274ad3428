"""Mask R-CNN (arXiv 1703.06870) as facts: fields and checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lska_jax.models.checks import check_counts
from lska_jax.models.dense.retinanet_config import (
    COCO_CLASSES,
    DETECTION_PREPROCESSING,
    DetectorConfig,
    check_detector,
)
from lska_jax.models.heads import Head

_COUNTS = (
    "hidden_channels",
    "train_candidates",
    "test_candidates",
    "proposals",
    "samples",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig(DetectorConfig):
    """The fields of the head, with those of ``DetectorConfig``.

    Attributes:
      hidden_channels: of the two layers ahead of a box's class.
      mask_depth: convolutions ahead of a mask's doubling.
      train_candidates: anchors of each level that proposals are made of, in training.
      test_candidates: likewise, in evaluation.
      proposals: of an image.
      samples: boxes of an image that the heads are trained on.
      roi_taps: of a bin of RoIAlign along each axis; 0 is the reference's, as many as it has cells.
    """

    hidden_channels: int = 1024
    mask_depth: int = 4
    train_candidates: int = 2000
    test_candidates: int = 1000
    proposals: int = 1000
    samples: int = 512
    roi_taps: int = 0


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of the head, one sentence each."""
    problems = [
        *check_detector(fields),
        *check_counts(fields, _COUNTS, low=1),
        *check_counts(fields, ("mask_depth", "roi_taps"), low=0),
    ]
    if not problems and fields["samples"] < 4:
        problems.append(f"samples={fields['samples']} must be at least 4: a quarter is objects.")
    return problems


HEAD = Head(
    name="mask_rcnn",
    title="Mask R-CNN",
    task="detection",
    config=MaskRCNNConfig,
    network="lska_jax.models.dense.mask_rcnn:MaskRCNN",
    check=check,
    summary=(
        "A detector with masks: Mask R-CNN ([arXiv 1703.06870](https://arxiv.org/abs/1703.06870)) "
        "for lska_jax."
    ),
    classes=(
        "box_head/classes/kernel",
        "box_head/classes/bias",
        "box_head/boxes/kernel",
        "box_head/boxes/bias",
        "mask_head/classes/kernel",
        "mask_head/classes/bias",
    ),
    num_classes=COCO_CLASSES,
    names="lska_jax.weights.names.detectors:MASK_RCNN",
    preprocessing=DETECTION_PREPROCESSING,
)
