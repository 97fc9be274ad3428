"""Names of the arrays of Semantic FPN and UPerNet in the checkpoints of mmsegmentation 0.x."""

from collections.abc import Mapping
from typing import Any

from lska_jax.weights.names.dense import HeadNames
from lska_jax.weights.names.rows import BATCH_NORM, CONV, CONV_1X1, Layout, Shape
from lska_jax.weights.names.shapes import axis

_Rows = tuple[tuple[str, Mapping[str, tuple[str, Layout]], str], ...]
# Maps of a backbone; rows of more than a network has are never asked for.
_LEVELS = range(6)
_KERNEL = {"kernel": CONV["kernel"]}
_KERNEL_1X1 = {"kernel": CONV_1X1["kernel"]}
_CLASSES = ("classifier/classes", CONV_1X1, "decode_head.conv_seg")


def fpn_rows() -> _Rows:
    """Return the rows of ``models.dense.fpn.FPN`` as a network's ``neck``."""
    laterals = ((f"neck/laterals/{i}", CONV_1X1, f"neck.lateral_convs.{i}.conv") for i in _LEVELS)
    outputs = ((f"neck/outputs/{i}", CONV, f"neck.fpn_convs.{i}.conv") for i in _LEVELS)
    return (*laterals, *outputs)


def _block(path: str, name: str, *, kernel_size: int = 3) -> _Rows:
    kernel = _KERNEL_1X1 if kernel_size == 1 else _KERNEL
    return ((f"{path}/conv", kernel, f"{name}.conv"), (f"{path}/norm", BATCH_NORM, f"{name}.bn"))


def _infer_semantic_fpn(by_path: Mapping[str, Shape]) -> dict[str, Any]:
    return {
        "pyramid_channels": axis(by_path, "neck/laterals/0/kernel", 0),
        "channels": axis(by_path, "branches/0/blocks/0/conv/kernel", 0),
        "num_classes": axis(by_path, "classifier/classes/kernel", 0),
    }


SEMANTIC_FPN = HeadNames(
    rows=(
        *fpn_rows(),
        _CLASSES,
        *(
            row
            for i in _LEVELS
            for j in range(max(i, 1))
            # The doublings between the convolutions have numbers too.
            for row in _block(f"branches/{i}/blocks/{j}", f"decode_head.scale_heads.{i}.{2 * j}")
        ),
    ),
    infer=_infer_semantic_fpn,
)


def _infer_upernet(by_path: Mapping[str, Shape]) -> dict[str, Any]:
    pools = sum(path.startswith("pools/") and path.endswith("/kernel") for path in by_path)
    return {
        # The sides that are pooled to do not show; all recipes have four, the usual ones.
        "pool_sides": (1, 2, 3, 6) if pools == 4 else None,
        "channels": axis(by_path, "fusion/conv/kernel", 0),
        "auxiliary_channels": axis(by_path, "auxiliary/conv/kernel", 0),
        "num_classes": axis(by_path, "classifier/classes/kernel", 0),
    }


UPERNET = HeadNames(
    rows=(
        _CLASSES,
        *(
            row
            for i in _LEVELS
            for row in _block(f"pools/{i}", f"decode_head.psp_modules.{i}.1", kernel_size=1)
        ),
        *_block("bottleneck", "decode_head.bottleneck"),
        *(
            row
            for i in _LEVELS
            for row in _block(f"laterals/{i}", f"decode_head.lateral_convs.{i}", kernel_size=1)
        ),
        *(row for i in _LEVELS for row in _block(f"outputs/{i}", f"decode_head.fpn_convs.{i}")),
        *_block("fusion", "decode_head.fpn_bottleneck"),
        ("auxiliary_classifier/classes", CONV_1X1, "auxiliary_head.conv_seg"),
        *_block("auxiliary", "auxiliary_head.convs.0"),
    ),
    infer=_infer_upernet,
)
