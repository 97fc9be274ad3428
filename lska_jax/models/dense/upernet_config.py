"""UPerNet (arXiv 1807.10221) as facts: fields and checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lska_jax.models.checks import check_counts, check_rates, is_count
from lska_jax.models.dense.semantic_fpn_config import ADE20K_CLASSES, SEGMENTATION_PREPROCESSING
from lska_jax.models.heads import Head, HeadConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class UPerNetConfig(HeadConfig):
    """The fields of the head.

    Attributes:
      channels: of the head.
      pool_sides: of the pooled maps, a square each.
      auxiliary_channels: of the second, auxiliary head, which is used in training only.
      dropout_rate: of whole channels ahead of the last convolutions.
    """

    channels: int = 512
    pool_sides: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary_channels: int = 256
    dropout_rate: float = 0.1


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of the head, one sentence each."""
    problems = [
        *check_counts(fields, ("channels", "auxiliary_channels"), low=1),
        *check_rates(fields, ("dropout_rate",)),
    ]
    sides = fields["pool_sides"]
    if not isinstance(sides, tuple) or not sides or not all(is_count(s, low=1) for s in sides):
        problems.append(f"pool_sides={sides!r} must be whole numbers from 1 on.")
    return problems


HEAD = Head(
    name="upernet",
    title="UPerNet",
    task="segmentation",
    config=UPerNetConfig,
    network="lska_jax.models.dense.upernet:UPerNet",
    check=check,
    summary=(
        "A segmentor: UPerNet ([arXiv 1807.10221](https://arxiv.org/abs/1807.10221)) with an "
        "auxiliary head, for lska_jax."
    ),
    classes=(
        "classifier/classes/kernel",
        "classifier/classes/bias",
        "auxiliary_classifier/classes/kernel",
        "auxiliary_classifier/classes/bias",
    ),
    num_classes=ADE20K_CLASSES,
    names="lska_jax.weights.names.segmentors:UPERNET",
    preprocessing=SEGMENTATION_PREPROCESSING,
)
