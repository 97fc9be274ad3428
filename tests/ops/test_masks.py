import functools

import golden_baselines
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.ops.masks import INSIDE, each_mask_targets, mask_targets, paste_masks


@pytest.fixture(scope="module")
def stored():
    return golden_baselines.golden("dense/ops_masks")


def bits(packed, width):
    return np.unpackbits(packed, axis=-1, count=width).astype(bool)


@pytest.mark.parametrize("arrays", [np, jnp])
def test_masks_are_pasted_as_the_reference_pastes_them(stored, arrays):
    height, width = map(int, stored["image_shape"])
    masks, boxes = arrays.asarray(stored["probabilities"]), arrays.asarray(stored["boxes"])
    paste = functools.partial(paste_masks, height=height, width=width)
    found = (jax.jit(paste) if arrays is jnp else paste)(masks, boxes)
    assert isinstance(found, type(masks))
    # The last box has no height, and its soft values no meaning.
    np.testing.assert_allclose(found[:-1], stored["pasted"][:-1], atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(found[:-1]) >= INSIDE, bits(stored["binary_bits"], width)[:-1]
    )


def test_a_pasted_mask_of_a_box_without_height_is_finite(stored):
    height, width = map(int, stored["image_shape"])
    found = paste_masks(stored["probabilities"], stored["boxes"], height=height, width=width)
    assert np.isfinite(found).all()


def test_targets_are_those_of_the_reference(stored):
    masks = jnp.asarray(stored["bitmap_bits"])
    boxes, indices = (
        jnp.asarray(stored["target/boxes"]),
        jnp.asarray(stored["target/gt"], jnp.int32),
    )
    found = jax.jit(mask_targets)(masks, boxes, indices)
    np.testing.assert_array_equal(found, bits(stored["target/bits"], 28))


def test_targets_of_a_batch_are_those_of_its_images():
    masks = np.zeros((2, 1, 16, 16), bool)
    masks[0, 0, :, :8], masks[1, 0, :8] = True, True
    boxes = jnp.array([[[0.0, 0.0, 16.0, 16.0]]] * 2)
    found = jax.jit(functools.partial(each_mask_targets, side=4))(
        jnp.asarray(np.packbits(masks, axis=-1)), boxes, jnp.zeros((2, 1), jnp.int32)
    )
    np.testing.assert_array_equal(found[0, 0], [[True, True, False, False]] * 4)
    np.testing.assert_array_equal(found[1, 0], np.transpose(found[0, 0]))
