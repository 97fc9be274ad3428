"""Grad-CAM, occlusion, gates and rollout against the same written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lska_jax import create_model
from lska_jax.analysis.attention_maps import attention_rollout, gate_maps
from lska_jax.analysis.gradcam import gradcam
from lska_jax.analysis.occlusion import occlusion_map
from lska_jax.analysis.photos import LoadedModel, read_photos
from lska_jax.models.table import Preprocessing
from lska_jax.nn.token_attention import attention_weights

IMAGES = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
VAN = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2), "num_classes": 5}
DEIT = {"dim": 6, "heads": 2, "depth": 2, "patch_size": 8, "position_grid": 4, "num_classes": 5}
SWIN = {"dims": (4, 8), "depths": (2, 1), "heads": (1, 2), "num_classes": 5}
WINDOWS = {"window": 4, "patch_size": 4, "image_size": 28}


@pytest.fixture(scope="module")
def van():
    model = create_model("van_lka_trivial_tiny", k=5, stem_stride=2, **VAN)
    model.eval()
    return model


@pytest.fixture(scope="module")
def deit():
    model = create_model("deit_tiny_distilled_patch16_224", **DEIT)
    model.eval()
    return model


def test_gradcam_of_a_mean_and_a_linear_layer_weighs_channels_with_its_column(van):
    found = gradcam(van, IMAGES)
    maps, logits = (np.asarray(x) for x in jax.jit(lambda x: (van.features(x)[-1], van(x)))(IMAGES))
    assert found.of_map == "stage2" and found.values.shape == maps.shape[:3]
    # Without labels it is of the class with the highest logit.
    np.testing.assert_array_equal(found.labels, np.argmax(logits, axis=-1))
    columns = np.asarray(van.classifier.kernel[...])[:, found.labels]
    weighed = np.einsum("bhwc,cb->bhw", maps, columns) / maps[0, :, :, 0].size
    np.testing.assert_allclose(found.values, np.maximum(weighed, 0), rtol=1e-5, atol=1e-8)
    assert (found.values > 0).any()


def test_gradcam_of_a_deit_is_of_the_patches_in_front_of_the_last_block(deit):
    tokens = jax.jit(lambda x: deit.tokens(x)[-2])(IMAGES)

    @jax.jit
    def slope(tokens):
        def logit(tokens):
            logits = deit.head(deit.norm(deit.blocks[-1](tokens)))
            return jnp.sum(logits[jnp.arange(2), jnp.asarray([0, 3])])

        return jax.grad(logit)(tokens)

    patches, of_patches = np.asarray(tokens)[:, 2:], np.asarray(slope(tokens))[:, 2:]
    weighed = np.einsum("bnc,bc->bn", patches, of_patches.mean(axis=1))
    found = gradcam(deit, IMAGES, [0, 3])
    assert found.of_map == "block1"
    np.testing.assert_allclose(
        found.values, np.maximum(weighed, 0).reshape(2, 4, 4), rtol=1e-4, atol=1e-8
    )


def test_mistakes_in_what_gradcam_is_of_say_what_there_is(van):
    with pytest.raises(ValueError, match="no map 'stage3'; this network has stage1, stage2"):
        gradcam(van, IMAGES, of_map="stage3")
    with pytest.raises(ValueError, match="one for each of 2 images, from 0 to 4"):
        gradcam(van, IMAGES, [0, 5])


def test_the_occlusion_map_is_that_of_a_loop_over_squares(van):
    image, window, stride, label = IMAGES[0], 10, 8, 2
    found = occlusion_map(van, image, label, window=window, stride=stride, batch_size=4)
    probability = jax.jit(lambda x: jax.nn.softmax(van(x[None]))[0, label])
    assert found.tops.tolist() == found.lefts.tolist() == [0, 8, 16, 22]
    for row, top in enumerate(found.tops):
        for column, left in enumerate(found.lefts):
            hidden = image.copy()
            hidden[top : top + window, left : left + window] = 0
            drop = probability(image) - probability(hidden)
            np.testing.assert_allclose(found.drops[row, column], drop, rtol=0, atol=1e-6)
    over = found.over_pixels(32, 32)
    assert over[0, 0] == found.drops[0, 0]
    np.testing.assert_allclose(over[9, 0], (found.drops[0, 0] + found.drops[1, 0]) / 2)


def test_windows_that_do_not_fit_are_refused(van):
    with pytest.raises(ValueError, match="give a window below 32 pixels"):
        occlusion_map(van, IMAGES[0], window=32)


def test_the_gate_is_what_large_kernel_attention_multiplies_with(van):
    gate = van.stages[0].blocks[0].attention.gate
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 6, 5, 4)), jnp.float32)
    both = jax.jit(lambda x: (gate(x), x * gate.factor(x)))
    np.testing.assert_allclose(*both(x), rtol=1e-6)


def test_every_block_has_a_gate_map(van, deit):
    found = gate_maps(van, IMAGES)
    paths = [f"stages/{stage}/blocks/0/attention/gate" for stage in (0, 1)]
    assert list(found) == paths
    assert [array.shape for array in found.values()] == [(2, 16, 16, 4), (2, 8, 8, 6)]
    with pytest.raises(ValueError, match="has no large-kernel gate"):
        gate_maps(deit, IMAGES)


def test_rollout_of_a_deit_is_the_product_of_its_matrices(deit):
    def weights(images):
        tokens = deit.tokens(images)
        return [
            attention_weights(block.attention.qkv(block.norm_1(x)), heads=block.attention.heads)
            for block, x in zip(deit.blocks, tokens, strict=False)
        ]

    product = np.eye(18)[None]
    for of_heads in map(np.asarray, jax.jit(weights)(IMAGES)):
        product = (of_heads.mean(axis=1) + np.eye(18)) / 2 @ product
    wanted = product[:, :2].mean(axis=1)[:, 2:].reshape(2, 4, 4)
    found = attention_rollout(deit, IMAGES)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_rollout_of_a_swin_stays_within_its_windows_also_the_shifted_ones():
    """Of equal weights in a window: a loop over the pixels of every window."""
    model = create_model("swin_tiny_patch4_window7_224", **SWIN, **WINDOWS)
    model.eval()
    for block in (block for stage in model.stages for block in stage.blocks):
        block.attention.qkv.kernel[...] *= 0
        block.attention.bias_table[...] *= 0
    found = attention_rollout(model, IMAGES)

    def attended(shares, shift, side=4):
        rows, columns = shares.shape
        moved = np.zeros_like(shares)
        for (row, column), share in np.ndenumerate(shares):
            own = [(p + side - shift) // side if shift else p // side for p in (row, column)]
            seen = [
                np.flatnonzero((np.arange(n) + (side - shift if shift else 0)) // side == w)
                for n, w in zip((rows, columns), own, strict=True)
            ]
            moved[np.ix_(*seen)] += share / (len(seen[0]) * len(seen[1]))
        return (moved + shares) / 2

    # Maps of 8 x 8, then 4 x 4, one window, which is not shifted.
    shares = attended(np.full((4, 4), 1 / 16), 0)
    shares = np.repeat(np.repeat(shares, 2, axis=0), 2, axis=1) / 4
    shares = attended(attended(shares, 2), 0)
    np.testing.assert_allclose(found, np.broadcast_to(shares, (2, 8, 8)), rtol=1e-5)


def test_networks_that_look_inside_do_not_recompute(van):
    model = create_model("van_lska_tiny", k=7, **VAN, remat=True)
    with pytest.raises(ValueError, match="build it with remat=False"):
        gate_maps(model, IMAGES)
    with pytest.raises(ValueError, match="rollout is of ViT, DeiT and Swin"):
        attention_rollout(van, IMAGES)


def test_a_photo_of_more_pixels_than_the_limit_is_refused_with_it(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    loaded = LoadedModel("small", None, Preprocessing(), ("one",), max_image_pixels=63)
    with pytest.raises(ValueError, match=r"photo\.png: 8 x 8 pixels are more than the limit of 63"):
        read_photos([tmp_path / "photo.png"], loaded)
