"""Semantic FPN (arXiv 1901.02446) as facts: fields, checks, preprocessing."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lska_jax.models.checks import check_counts, check_rates
from lska_jax.models.heads import Head, HeadConfig
from lska_jax.models.table import Preprocessing

# Of ImageNet's pixels; images keep their shape, within 512 x 2048 pixels as recipes for ADE20K do.
SEGMENTATION_PREPROCESSING = Preprocessing(
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
    image_size=512,
    crop_pct=1.0,
    interpolation="bilinear",
    crop_mode="whole",
    long_side=2048,
)
ADE20K_CLASSES = 150


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticFPNConfig(HeadConfig):
    """The fields of the head.

    Attributes:
      pyramid_channels: of the feature pyramid.
      channels: of the head's branches.
      dropout_rate: of whole channels ahead of the last convolution.
    """

    pyramid_channels: int = 256
    channels: int = 128
    dropout_rate: float = 0.1


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of the head, one sentence each."""
    return [
        *check_counts(fields, ("pyramid_channels", "channels"), low=1),
        *check_rates(fields, ("dropout_rate",)),
    ]


HEAD = Head(
    name="semantic_fpn",
    title="Semantic FPN",
    task="segmentation",
    config=SemanticFPNConfig,
    network="lska_jax.models.dense.semantic_fpn:SemanticFPN",
    check=check,
    summary=(
        "A segmentor: Semantic FPN ([arXiv 1901.02446](https://arxiv.org/abs/1901.02446)) for "
        "lska_jax."
    ),
    classes=("classifier/classes/kernel", "classifier/classes/bias"),
    num_classes=ADE20K_CLASSES,
    names="lska_jax.weights.names.segmentors:SEMANTIC_FPN",
    preprocessing=SEGMENTATION_PREPROCESSING,
)
