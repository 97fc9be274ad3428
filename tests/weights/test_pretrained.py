"""``create_model(pretrained=...)``: same outputs, other classes and channels, preprocessing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import small_model

from lska_jax import VAN, create_model
from lska_jax.models.table import Preprocessing
from lska_jax.weights import ModelFacts, write_model_folder
from lska_jax.weights.pretrained import arrays_of

PREPARED = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), image_size=32)
DEPTHS = (1, 1)
STEM = "stages/0/patch_embedding/projection/kernel"


@pytest.fixture(scope="module")
def model() -> VAN:
    model = small_model(rngs=nnx.Rngs(5), depths=DEPTHS)
    model.eval()
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    facts = ModelFacts(config=model.config, preprocessing=PREPARED)
    return write_model_folder(tmp_path_factory.mktemp("m") / "model", facts, arrays_of(model))


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_folder_alone_makes_the_same_model(folder, model):
    loaded = create_model(pretrained=folder)
    assert loaded.config == model.config and loaded.preprocessing == PREPARED
    ours, theirs = arrays_of(loaded), arrays_of(model)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_a_fresh_model_has_the_references_preprocessing_for_its_channels():
    assert small_model().preprocessing == Preprocessing()
    assert small_model(in_channels=1).preprocessing.mean == (0.5,)


@pytest.mark.slow
def test_dropout_and_drop_path_of_a_pretrained_model_draw_new_masks(folder):
    model = create_model(pretrained=folder, drop_path_rate=0.9, drop_rate=0.5)
    run = nnx.jit(lambda model, x: model(x))
    x = images(4, 16, 16, 3)
    assert np.any(run(model, x) != run(model, x))


def test_it_is_built_like_a_fresh_model_of_the_same_arguments(folder):
    options = {"dtype": jnp.bfloat16, "remat": True, "drop_path_rate": 0.2, "drop_rate": 0.1}
    loaded, fresh = (
        create_model(pretrained=folder, **options),
        small_model(depths=DEPTHS, **options),
    )
    loaded.preprocessing = fresh.preprocessing
    (graph, state), (fresh_graph, fresh_state) = nnx.split(loaded), nnx.split(fresh)
    assert graph == fresh_graph
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(fresh_state), strict=True)
    assert all((a.shape, a.dtype) == (b.shape, b.dtype) for a, b in pairs)


@pytest.mark.parametrize("num_classes", [3, 1000])
def test_other_classes_get_a_fresh_head_and_keep_the_rest(folder, model, num_classes):
    loaded = create_model(pretrained=folder, num_classes=num_classes, rngs=nnx.Rngs(1))
    kernel = np.asarray(loaded.classifier.kernel[...])
    assert kernel.shape == (6, num_classes) and not np.any(loaded.classifier.bias[...])
    assert 0 < kernel.std() < 0.04
    other = create_model(pretrained=folder, num_classes=num_classes, rngs=nnx.Rngs(2))
    assert np.any(kernel != other.classifier.kernel[...])
    ours, theirs = arrays_of(loaded), arrays_of(model)
    body = [path for path in ours if not path.startswith("classifier")]
    assert all(np.array_equal(ours[path], theirs[path]) for path in body)


def test_no_classes_give_the_pooled_features(folder):
    loaded = create_model(pretrained=folder, num_classes=0)
    assert loaded.classifier is None and loaded.config.num_classes == 0


def test_one_channel_sums_the_stem_over_rgb(folder, model):
    loaded = create_model(pretrained=folder, in_channels=1)
    expected = arrays_of(model)[STEM].sum(axis=2, keepdims=True)
    np.testing.assert_array_equal(arrays_of(loaded)[STEM], expected)
    # A grey picture as three equal channels gives the same logits.
    loaded.eval()
    grey = images(2, 16, 16, 1)
    run = nnx.jit(lambda model, x: model(x))
    # Float32 rounding through two blocks.
    np.testing.assert_allclose(
        run(loaded, grey), run(model, np.repeat(grey, 3, -1)), rtol=1e-4, atol=1e-5
    )
    assert loaded.preprocessing.mean == (pytest.approx(0.2),)


@pytest.mark.parametrize("in_channels", [2, 4, 7])
def test_several_channels_repeat_the_stem_and_scale_it(folder, model, in_channels):
    loaded = create_model(pretrained=folder, in_channels=in_channels)
    kernel = arrays_of(model)[STEM]
    for channel in range(in_channels):
        np.testing.assert_allclose(
            arrays_of(loaded)[STEM][:, :, channel],
            kernel[:, :, channel % 3] * 3 / in_channels,
            rtol=1e-6,  # one rounding of the factor, one of the product
        )
    assert loaded.preprocessing.mean == tuple((0.1, 0.2, 0.3)[c % 3] for c in range(in_channels))


def test_weights_that_are_not_for_rgb_are_not_adapted(tmp_path):
    grey = small_model(in_channels=1)
    facts = ModelFacts(config=grey.config, preprocessing=grey.preprocessing)
    folder = write_model_folder(tmp_path / "grey", facts, arrays_of(grey))
    assert create_model(pretrained=folder).config.in_channels == 1
    with pytest.raises(ValueError, match="take 1 input channels and cannot be adapted to 3"):
        create_model(pretrained=folder, in_channels=3)


def test_arguments_that_contradict_the_weights_are_all_listed(folder):
    with pytest.raises(ValueError) as refusal:
        create_model("van_lka_tiny", pretrained=folder, k=35)
    message = str(refusal.value)
    assert "attention: asked for lka, the weights have lska" in message
    assert "k: asked for 35, the weights have 23" in message
    assert "dims: asked for (32, 64, 160, 256), the weights have (4, 6)" in message
    assert "lska-jax transfer" in message


def test_arguments_that_agree_are_taken(folder):
    sizes = {"dims": [4, 6], "depths": DEPTHS, "ffn_ratios": (2, 2)}
    loaded = create_model("van_lska_tiny", pretrained=folder, k=23, dilation=3, **sizes)
    assert loaded.config.k == 23


def test_neither_a_name_nor_weights_is_an_error():
    with pytest.raises(TypeError, match="create_model needs a name"):
        create_model()


@pytest.mark.parametrize("pretrained", ["no/such/folder", "nothing", "../x/y", "hf-hub:../../etc"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_said_so(pretrained):
    with pytest.raises(FileNotFoundError, match="is no Hub id"):
        create_model(pretrained=pretrained)
