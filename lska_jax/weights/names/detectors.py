"""Names of the arrays of RetinaNet and Mask R-CNN in the checkpoints of mmdetection 2.x."""

from collections.abc import Mapping
from typing import Any

from lska_jax.weights.names.dense import HeadNames
from lska_jax.weights.names.rows import BIAS, CONV, CONV_1X1, MATRIX, Layout, Shape
from lska_jax.weights.names.segmentors import fpn_rows
from lska_jax.weights.names.shapes import axis

_DEPTHS = range(8)
# (in, out, kh, kw) -> (kh, kw, in, out)
_TRANSPOSED = {"kernel": ("weight", Layout((2, 3, 0, 1))), **BIAS}
# Anchors of a cell in RetinaNet.
_PER_CELL = 9


def _infer_retinanet(by_path: Mapping[str, Shape]) -> dict[str, Any]:
    outputs = axis(by_path, "class_head/last/kernel", 0)
    return {
        "pyramid_channels": axis(by_path, "neck/laterals/0/kernel", 0),
        "tower_depth": _count(by_path, "class_head/convs/"),
        "num_classes": None if outputs is None or outputs % _PER_CELL else outputs // _PER_CELL,
    }


RETINANET = HeadNames(
    rows=(
        *fpn_rows(),
        *((f"class_head/convs/{i}", CONV, f"bbox_head.cls_convs.{i}.conv") for i in _DEPTHS),
        *((f"box_head/convs/{i}", CONV, f"bbox_head.reg_convs.{i}.conv") for i in _DEPTHS),
        ("class_head/last", CONV, "bbox_head.retina_cls"),
        ("box_head/last", CONV, "bbox_head.retina_reg"),
    ),
    infer=_infer_retinanet,
)


def _infer_mask_rcnn(by_path: Mapping[str, Shape]) -> dict[str, Any]:
    return {
        "pyramid_channels": axis(by_path, "neck/laterals/0/kernel", 0),
        "hidden_channels": axis(by_path, "box_head/hidden/1/kernel", 0),
        "mask_depth": _count(by_path, "mask_head/convs/"),
        "num_classes": axis(by_path, "mask_head/classes/kernel", 0),
    }


MASK_RCNN = HeadNames(
    rows=(
        *fpn_rows(),
        ("rpn/conv", CONV, "rpn_head.rpn_conv"),
        ("rpn/objects", CONV_1X1, "rpn_head.rpn_cls"),
        ("rpn/boxes", CONV_1X1, "rpn_head.rpn_reg"),
        ("box_head/classes", MATRIX, "roi_head.bbox_head.fc_cls"),
        ("box_head/boxes", MATRIX, "roi_head.bbox_head.fc_reg"),
        *((f"box_head/hidden/{i}", MATRIX, f"roi_head.bbox_head.shared_fcs.{i}") for i in (0, 1)),
        *((f"mask_head/convs/{i}", CONV, f"roi_head.mask_head.convs.{i}.conv") for i in _DEPTHS),
        ("mask_head/doubling", _TRANSPOSED, "roi_head.mask_head.upsample"),
        ("mask_head/classes", CONV_1X1, "roi_head.mask_head.conv_logits"),
    ),
    infer=_infer_mask_rcnn,
)


def _count(by_path: Mapping[str, Shape], start: str) -> int:
    return sum(path.startswith(start) and path.endswith("/kernel") for path in by_path)
