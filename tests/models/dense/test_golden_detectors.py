"""Whole detectors with golden weights against the reference: outputs, losses, gradients."""

import inspect
import json
from unittest import mock

import dense_goldens
import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax.models.dense import mask_rcnn as mask_rcnn_module
from lska_jax.models.dense.roi_heads import BoxHead, MaskHead
from lska_jax.models.dense.rpn import Proposals
from lska_jax.nn.functional import flat_values, parameters

pytestmark = pytest.mark.slow

RETINANET = "retinanet_lska_tiny_k23__2x64x96"
MASK_RCNN = "mask_rcnn_lska_tiny_k23__2x64x96"
# The stored run was made with fewer candidates, proposals and samples.
FEWER = {
    "train_candidates": 300,
    "test_candidates": 300,
    "proposals": 100,
    "samples": 64,
    "max_detections": 30,
}
# Layers, images, samples and values of the box head.
HIDDEN = (2, 2, FEWER["samples"], 1024)


def relative_error(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.fixture(scope="module")
def retinanet():
    stored = golden_baselines.golden(f"dense/{RETINANET}")
    return dense_goldens.detector("retinanet", stored), stored


@pytest.fixture(scope="module")
def mask_rcnn():
    stored = golden_baselines.golden(f"dense/{MASK_RCNN}")
    return dense_goldens.detector("mask_rcnn", stored, **FEWER), stored


def image_alone(stored, number):
    """Return one image with its own padding, its size, and its scale."""
    batch, (width, height) = dense_goldens.images(stored), stored["scale_factor"][:2]
    rows, columns = stored["second_pad_shape"] if number else dense_goldens.CANVAS
    sizes = dense_goldens.sizes(stored)[number : number + 1]
    images = batch[number : number + 1, :rows, :columns]
    return jnp.asarray(images), jnp.asarray(sizes), jnp.asarray([[height, width]])


@nnx.jit
def outputs_and_detections(network, images, sizes, scales):
    if hasattr(network, "rpn"):
        maps = network.pyramid_maps(images)
        proposals = network.propose(maps, sizes, images.shape[1:3])
        outputs = network.rpn(maps)[0], proposals
        outputs += network.box_head(network.read(maps, proposals.boxes, side=7))
    else:
        outputs = network.outputs(images)[:2]
    return outputs, network.detect(images, sizes, scales)


def check_detections(found, stored, number):
    """Compare detections; neighbours whose scores are closer than 1e-4 may change places."""
    scores, count = stored[f"test{number}/scores"], len(stored[f"test{number}/scores"])
    assert np.asarray(found.is_valid[0]).sum() == count
    np.testing.assert_allclose(found.scores[0, :count], scores, rtol=1e-4)
    expected = np.c_[stored[f"test{number}/labels"], stored[f"test{number}/boxes"]]
    rows = np.c_[np.asarray(found.labels[0, :count]), np.asarray(found.boxes[0, :count])]
    for place, row in enumerate(rows):
        near = np.flatnonzero(np.abs(scores - scores[place]) < 1e-4 * scores[place] + 1e-7)
        distance = np.abs(expected[near] - row[None]).max(axis=1)
        # Of 96 pixels.
        assert distance.min() < 1e-3


@pytest.mark.parametrize("number", [0, 1])
def test_retinanet_finds_what_the_reference_finds(retinanet, number):
    network, stored = retinanet
    (logits, deltas), found = outputs_and_detections(network, *image_alone(stored, number))
    assert relative_error(logits[0, ::7], stored[f"test{number}/class_logits"]) < 1e-5
    assert relative_error(deltas[0], stored[f"test{number}/box_deltas"]) < 1e-5
    check_detections(found, stored, number)


@pytest.mark.parametrize("number", [0, 1])
def test_mask_rcnn_finds_what_the_reference_finds(mask_rcnn, number):
    network, stored = mask_rcnn
    outputs, found = outputs_and_detections(network, *image_alone(stored, number))
    logits, proposals, classes, _ = outputs
    assert relative_error(logits[0], stored[f"test{number}/rpn_logits"]) < 1e-5
    expected = stored[f"test{number}/proposals"]
    np.testing.assert_allclose(proposals.boxes[0], expected[:, :4], atol=1e-3)
    # Behind proposals of its own: they are rounded differently.
    assert relative_error(classes[0], stored[f"test{number}/class_logits"]) < 1e-4
    check_detections(found, stored, number)
    if number == 0:
        expected = jax.nn.sigmoid(stored["test0/mask_logits"])
        np.testing.assert_allclose(found.masks[0, :8], expected, atol=1e-4)


@pytest.fixture(scope="module")
def trained_retinanet(retinanet):
    network, stored = retinanet
    run = dense_goldens.losses_and_gradients(network)
    images = jnp.asarray(dense_goldens.images(stored))
    return lambda case, rows=4: run(images, dense_goldens.truth(stored, case, rows=rows))


@pytest.mark.parametrize("case", ["some", "ignored", "none"])
def test_retinanet_has_the_losses_and_gradients_of_the_reference(
    retinanet, trained_retinanet, case
):
    network, stored = retinanet
    losses, gradients = trained_retinanet(case)
    np.testing.assert_allclose(losses["classes"], stored[f"{case}/loss_cls"].sum(), rtol=1e-5)
    np.testing.assert_allclose(losses["boxes"], stored[f"{case}/loss_bbox"].sum(), rtol=1e-5)
    errors = dense_goldens.gradient_errors(network, gradients, stored, case)
    assert max(errors.values()) < 1e-4


def test_more_padding_of_the_truth_changes_neither_loss_nor_gradient(trained_retinanet):
    few, many = (trained_retinanet("some", rows) for rows in (4, 8))
    for name, loss in few[0].items():
        np.testing.assert_array_equal(loss, many[0][name])
    for path, gradient in few[1].items():
        np.testing.assert_array_equal(gradient, many[1][path])


@pytest.fixture(scope="module")
def trained_mask_rcnn(mask_rcnn):
    """Return (case, ...) -> losses, gradients, and which values of the box head are above zero.

    With the stored proposals or its own. ``noise`` is that of the mask head's input; ``signs``
    says which values of the box head its ReLUs let through, in place of their signs.
    """
    network, stored = mask_rcnn
    images, make = jnp.asarray(dense_goldens.images(stored)), mask_rcnn_module.make_proposals
    call = inspect.unwrap(MaskHead.__call__)
    training = nnx.view(network, deterministic=False, use_running_average=False)
    graph, params, rest = nnx.split(training, nnx.Param, ...)

    # Images are an argument: of constants XLA would compute what it can while it compiles.
    @jax.jit
    def run(images, truth, rows, use_stored, noise, use_signs, signs):
        above_zero = []
        given = Proposals(rows[..., :4], rows[..., 4], jnp.ones(rows.shape[:2], bool), None)

        def choose(*args, **kwargs):
            own = make(*args, **kwargs)._replace(levels=None)
            return jax.tree.map(lambda a, b: jnp.where(use_stored, a, b), given, own)

        def call_shaken(head, x, labels):
            drawn = jax.random.normal(jax.random.key(0), x.shape, jnp.float32)
            return call(head, x * (1.0 + noise * drawn), labels)

        def call_box_head(head, x):
            x = jnp.moveaxis(x, -1, 2).reshape(*x.shape[:2], -1)
            for layer, given in zip(head.hidden, signs, strict=True):
                values = layer(x)
                above_zero.append(values > 0)
                x = jnp.where(jnp.where(use_signs, given, values > 0), values, 0.0)
            return head.classes(x), head.boxes(x).reshape(*x.shape[:2], -1, 4)

        def total(params):
            with (
                mock.patch.object(mask_rcnn_module, "make_proposals", choose),
                mock.patch.object(BoxHead, "__call__", call_box_head),
                mock.patch.object(MaskHead, "__call__", call_shaken),
            ):
                model = nnx.merge(graph, params, rest, copy=True)
                parts = inspect.unwrap(type(model).losses)(model, images, truth)
            return sum(parts.values()), (parts, jnp.stack(above_zero))

        (_, (parts, found)), gradients = jax.value_and_grad(total, has_aux=True)(params)
        return parts, flat_values(gradients), found

    def run_case(case, *, use_stored, noise=0.0, signs=None):
        rows = np.stack([stored[f"{case}/proposals{image}"] for image in range(2)])
        truth = dense_goldens.truth(stored, case)
        given = np.zeros(HIDDEN, bool) if signs is None else signs
        return run(images, truth, rows, use_stored, jnp.float32(noise), signs is not None, given)

    return run_case


LOSSES = {
    "objects": "loss_rpn_cls",
    "proposals": "loss_rpn_bbox",
    "classes": "loss_cls",
    "boxes": "loss_bbox",
    "masks": "loss_mask",
}


each_case = pytest.mark.parametrize("case", ["some", "both", "none"])


@pytest.mark.parametrize("use_stored", [False, True])
@each_case
def test_mask_rcnn_has_the_losses_of_the_reference(mask_rcnn, trained_mask_rcnn, case, use_stored):
    losses, _, _ = trained_mask_rcnn(case, use_stored=use_stored)
    for ours, theirs in LOSSES.items():
        expected = mask_rcnn[1][f"{case}/{theirs}"].sum()
        np.testing.assert_allclose(losses[ours], expected, rtol=1e-5, atol=1e-7)


def gradient_errors(mask_rcnn, trained_mask_rcnn, case, **how):
    network, stored = mask_rcnn
    _, gradients, _ = trained_mask_rcnn(case, **how)
    return dense_goldens.gradient_errors(network, gradients, stored, case)


def is_in_mask_head(name):
    return name.startswith("roi_head.mask_head")


@each_case
def test_mask_rcnns_gradients_but_of_its_masks_are_those_of_the_reference(
    mask_rcnn, trained_mask_rcnn, case
):
    errors = gradient_errors(mask_rcnn, trained_mask_rcnn, case, use_stored=True)
    assert max(error for name, error in errors.items() if not is_in_mask_head(name)) < 1e-4


@each_case
def test_gradients_of_the_mask_head_are_those_of_the_reference_as_far_as_rounding_goes(
    mask_rcnn, trained_mask_rcnn, case
):
    errors = gradient_errors(mask_rcnn, trained_mask_rcnn, case, use_stored=True)
    errors = {name: error for name, error in errors.items() if is_in_mask_head(name)}
    # Behind the last ReLU.
    assert max(error for name, error in errors.items() if "conv_logits" in name) < 1e-5
    # Ahead of a ReLU a gradient jumps where a value near zero changes its sign. Of a million values
    # some do within float32 rounding: input that differs by a millionth moves these gradients as
    # much as they are away from the reference's.
    by_rounding = moved_mask_head(mask_rcnn, trained_mask_rcnn, case, (1e-6, 2e-6))
    assert max(errors.values()) < max(1e-4, 2 * by_rounding)


def moved_mask_head(mask_rcnn, trained_mask_rcnn, case, noises):
    """Return how far the mask head's gradients move at most with noise in its input."""
    network, _ = mask_rcnn
    found = []
    for noise in (0.0, *noises):
        _, gradients, _ = trained_mask_rcnn(case, use_stored=True, noise=noise)
        found.append(dense_goldens.gradient_values(network, gradients))
    moved = [dense_goldens.errors_of(shaken, found[0]) for shaken in found[1:]]
    return max(error for one in moved for n, error in one.items() if is_in_mask_head(n))


@each_case
def test_gradients_with_proposals_of_its_own_are_those_of_the_reference_but_for_signs_at_zero(
    mask_rcnn, trained_mask_rcnn, case
):
    # The reference's proposals are up to 3e-4 pixels off those of float64, and so are these.
    # A box head of 262,144 values has a few so near to zero that they change their sign: each is
    # one of thousands of terms of about the same size, and moves gradients by up to 4e-3.
    signs = trained_mask_rcnn(case, use_stored=True)[2]
    own = trained_mask_rcnn(case, use_stored=False)[2]
    assert (np.asarray(signs) != np.asarray(own)).sum() <= 8
    errors = gradient_errors(mask_rcnn, trained_mask_rcnn, case, use_stored=False, signs=signs)
    assert max(error for name, error in errors.items() if not is_in_mask_head(name)) < 1e-4
    # Proposals move the mask head's input by 4e-6 in the median.
    by_rounding = moved_mask_head(mask_rcnn, trained_mask_rcnn, case, (4e-6, 8e-6))
    of_masks = [error for name, error in errors.items() if is_in_mask_head(name)]
    assert max(of_masks) < max(1e-4, 2 * by_rounding)


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn"])
def test_names_and_shapes_are_those_of_the_references_checkpoint(head, request):
    network, _ = request.getfixturevalue(head)
    path = dense_goldens.golden_weights.GOLDEN / "dense" / f"{head}_lska_tiny_k23.keys.json"
    listed = {
        name: tuple(shape)
        for name, shape in json.loads(path.read_text()).items()
        if not name.endswith(("num_batches_tracked", "running_mean", "running_var"))
    }
    named = golden_baselines.named(
        network, {p: np.asarray(a) for p, a in parameters(network).items()}
    )
    assert {name: array.shape for name, array in named.items()} == listed
