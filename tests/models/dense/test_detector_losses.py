"""Losses of detectors for given outputs: padding, empty images, rows that are no images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.models.dense.anchors import Anchors
from lska_jax.models.dense.detector import Truth
from lska_jax.models.dense.retinanet import assign_anchors, retina_losses
from lska_jax.models.dense.rpn import OVERLAPS, proposal_losses

MAPS = [(4, 6), (2, 3)]
ANCHORS = Anchors(strides=(8, 16), scales=(2.0,))
BOXES = np.array([[3, 4, 20, 22], [10, 2, 40, 30], [0, 0, 9, 30]], np.float32)


def outputs(seed=0):
    count = sum(ANCHORS.counts(MAPS))
    keys = jax.random.split(jax.random.key(seed), 3)
    draw = jax.random.normal
    return draw(keys[0], (2, count, 3)), draw(keys[1], (2, count, 4)), draw(keys[2], (2, count))


def truth(counts=(3, 1), rows=4, is_image=(True, True), filler=0.0):
    boxes = np.full((2, rows, 4), filler, np.float32)
    is_box = np.zeros((2, rows), bool)
    for image, count in enumerate(counts):
        boxes[image, :count], is_box[image, :count] = BOXES[:count], True
    labels = np.tile(np.arange(rows, dtype=np.int32) % 3, (2, 1))
    sizes = np.array([[32, 48], [32, 48]], np.int32)
    return Truth(*map(jnp.asarray, (boxes, labels, is_box, sizes, np.array(is_image))))


@jax.jit
def losses_and_gradients(given, truth):
    anchors = jnp.asarray(ANCHORS.boxes(MAPS))
    is_counted = jnp.broadcast_to(truth.is_image[:, None], (2, len(anchors)))
    assigned = assign_anchors(anchors, truth, is_counted, overlaps=OVERLAPS)

    def total(given):
        logits, deltas, objects = given
        losses = retina_losses(logits, deltas, anchors, assigned, truth)
        of_proposals = proposal_losses(objects, deltas, anchors, assigned, truth, key=None)
        losses |= of_proposals
        return sum(losses.values()), losses

    (_, losses), gradients = jax.value_and_grad(total, has_aux=True)(given)
    return losses, gradients


@pytest.mark.parametrize("filler", [0.0, 7.0, np.nan])
def test_padding_of_the_truth_changes_neither_loss_nor_gradient(filler):
    few = losses_and_gradients(outputs(), truth())
    more = losses_and_gradients(outputs(), truth(rows=8, filler=filler))
    for one, other in zip(jax.tree.leaves(few), jax.tree.leaves(more), strict=True):
        np.testing.assert_array_equal(one, other)
    assert few[0]["boxes"] > 0


@pytest.mark.parametrize("counts", [(0, 0), (2, 0)])
def test_images_without_boxes_have_finite_losses_and_gradients(counts):
    losses, gradients = losses_and_gradients(outputs(), truth(counts))
    assert all(np.isfinite(array).all() for array in jax.tree.leaves((losses, gradients)))
    assert losses["classes"] > 0
    assert (losses["boxes"] > 0) == (sum(counts) > 0)


def test_rows_that_are_no_images_count_nothing_whatever_they_hold():
    given = outputs()
    broken = tuple(array.at[1].set(jnp.nan) for array in given)
    losses, gradients = losses_and_gradients(broken, truth(is_image=(True, False)))
    # The same images twice are as many objects over twice the count.
    twice = tuple(array.at[1].set(array[0]) for array in given)
    expected, _ = losses_and_gradients(twice, truth((3, 3)))
    for name, loss in losses.items():
        np.testing.assert_allclose(loss, expected[name], rtol=1e-6)
    assert all(np.isfinite(array).all() for array in jax.tree.leaves(gradients))
    assert all(not np.asarray(array)[1].any() for array in gradients)
