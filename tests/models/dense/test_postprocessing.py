"""From outputs of the heads to proposals and detections, as the reference has them."""

import functools

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.models.dense.anchors import Anchors
from lska_jax.models.dense.mask_rcnn_config import MaskRCNNConfig
from lska_jax.models.dense.retinanet import retina_detections
from lska_jax.models.dense.retinanet_config import RetinaNetConfig
from lska_jax.models.dense.roi_heads import box_detections
from lska_jax.models.dense.rpn import make_proposals, proposal_anchors


@pytest.fixture(scope="module")
def stored():
    return golden_baselines.golden("dense/ops_postprocess")


def image_of(stored):
    width, height = stored["scale_factor"][:2]
    return jnp.asarray(stored["img_shape"], jnp.int32)[None], jnp.array([[height, width]])


def check_detections(found, stored, name):
    count = len(stored[f"{name}/scores"])
    assert np.asarray(found.is_valid[0]).tolist() == [True] * count
    np.testing.assert_array_equal(found.labels[0], stored[f"{name}/labels"])
    np.testing.assert_allclose(found.scores[0], stored[f"{name}/scores"], rtol=1e-5)
    np.testing.assert_allclose(found.boxes[0], stored[f"{name}/boxes"], atol=1e-3)


def test_retinanets_detections_are_those_of_the_reference(stored):
    anchors = Anchors(
        strides=(8, 16, 32, 64, 128), scales=tuple(4 * 2 ** (third / 3) for third in range(3))
    )
    maps = [tuple(map(int, size)) for size in stored["sizes"]]
    logits, deltas = (jnp.asarray(stored[f"retinanet/{n}"])[None] for n in ("logits", "deltas"))
    head = RetinaNetConfig(
        candidates=int(stored["retinanet/nms_pre"]),
        max_detections=int(stored["retinanet/max_per_img"]),
    )
    run = jax.jit(
        functools.partial(
            retina_detections,
            anchors=jnp.asarray(anchors.boxes(maps)),
            is_within=jnp.ones(logits.shape[:2], bool),
            counts=anchors.counts(maps),
            head=head,
        )
    )
    sizes, scales = image_of(stored)
    check_detections(run(logits, deltas, sizes=sizes, scales=scales), stored, "retinanet")


def test_proposals_are_those_of_the_reference(stored):
    maps = [tuple(map(int, size)) for size in stored["rpn/sizes"]]
    anchors = proposal_anchors((4, 8, 16, 32, 64))
    logits, deltas = (jnp.asarray(stored[f"rpn/{n}"])[None] for n in ("logits", "deltas"))
    expected = stored["rpn/proposals"]
    run = jax.jit(
        functools.partial(
            make_proposals,
            anchors=jnp.asarray(anchors.boxes(maps)),
            is_within=jnp.ones(logits.shape, bool),
            counts=anchors.counts(maps),
            candidates=int(stored["rpn/nms_pre"]),
            limit=int(stored["rpn/max_per_img"]),
        )
    )
    found = run(logits, deltas, sizes=image_of(stored)[0])
    assert found.is_valid.all()
    np.testing.assert_allclose(found.boxes[0], expected[:, :4], atol=1e-3)
    np.testing.assert_allclose(found.scores[0], expected[:, 4], rtol=1e-5)


def test_the_box_heads_detections_are_those_of_the_reference(stored):
    logits = jnp.asarray(stored["roi/logits"])[None]
    deltas = jnp.asarray(stored["roi/deltas"]).reshape(1, len(stored["roi/deltas"]), -1, 4)
    boxes = jnp.asarray(stored["rpn/proposals"])[None, :, :4]
    run = jax.jit(functools.partial(box_detections, head=MaskRCNNConfig()))
    found = run(logits, deltas, boxes, jnp.ones(boxes.shape[:2], bool), *image_of(stored))
    check_detections(found, stored, "roi")
