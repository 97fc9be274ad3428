"""What networks have besides maps: feature_info, chosen maps, a fresh classifier, a name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import create_model, fold_batch_norm
from lska_jax.models.build import abstract_model, config_of
from lska_jax.models.network import FeatureInfo
from lska_jax.models.table import section_of

NARROW = {"dims": (4, 6), "depths": (1, 1), "num_classes": 5}
SMALL = {
    "van_lska_tiny": {**NARROW, "ffn_ratios": (2, 2)},
    "convnext_tiny": NARROW,
    "swin_tiny_patch4_window7_224": {**NARROW, "heads": (1, 2)},
    "pvt_v2_b0": {**NARROW, "heads": (1, 2), "ffn_ratios": (2, 2), "reductions": (2, 1)},
    "inception_next_tiny": {**NARROW, "dims": (8, 16), "mlp_ratios": (2, 2)},
    "unireplknet_a": {**NARROW, "large_every": (0, 1)},
    "deit_tiny_distilled_patch16_224": {"dim": 6, "heads": 2, "depth": 2, "num_classes": 5},
}
# The plainest, and those with heads of their own; the others at a release.
HELD = ("van_lska_tiny", "inception_next_tiny", "deit_tiny_distilled_patch16_224")
each_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in HELD else pytest.mark.slow) for name in SMALL]
)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64, 64, 3)), jnp.float32)


def small(name: str, **fields):
    return create_model(name, **{**SMALL[name], **fields})


def abstract(name: str, **fields):
    return abstract_model(config_of(section_of(name, **{**SMALL[name], **fields})))


@each_network
def test_feature_info_says_what_features_returns(name):
    model = abstract(name)
    graph, state = nnx.split(model)
    maps = jax.eval_shape(lambda state: nnx.merge(graph, state).features(IMAGES), state)
    assert len(model.feature_info) == len(maps)
    for info, found in zip(model.feature_info, maps, strict=True):
        assert getattr(maps, info.name) is found
        assert info.channels == found.shape[-1]
        assert info.stride == (64 // found.shape[1] if found.ndim == 4 else None)


def test_feature_info_of_the_published_sizes():
    assert abstract("convnext_tiny", dims=(4, 5, 6, 7), depths=(1, 1, 1, 1)).feature_info == (
        FeatureInfo("stage1", 4, 4),
        FeatureInfo("stage2", 5, 8),
        FeatureInfo("stage3", 6, 16),
        FeatureInfo("stage4", 7, 32),
    )


def test_a_network_of_features_returns_the_maps_that_are_wanted():
    name = "van_lska_tiny"
    features = create_model(name, **{**SMALL[name], "num_classes": None}, features_only=True)
    features.eval()
    chosen = create_model(name, **SMALL[name], features_only=True, out_indices=(-1,))
    chosen.eval()
    assert [info.name for info in chosen.feature_info] == ["stage2"]
    run = nnx.jit(lambda features, chosen, images: (features(images), chosen(images)))
    whole, last = run(features, chosen, IMAGES[:, :16, :16])
    assert whole._fields == ("stage1", "stage2")
    np.testing.assert_array_equal(last.stage2, whole.stage2)


def test_indices_of_no_map_are_refused_with_the_maps_that_there_are():
    with pytest.raises(ValueError, match=r"has 2 maps, stage1, stage2; give a list of numbers"):
        small("van_lska_tiny", features_only=True, out_indices=(0, 2))
    with pytest.raises(TypeError, match="out_indices are of features_only=True"):
        small("van_lska_tiny", out_indices=(0,))
    with pytest.raises(TypeError, match="must be an int, got True .*give a list of numbers from 0"):
        small("van_lska_tiny", features_only=True, out_indices=(True,))


@each_network
def test_a_fresh_classifier_is_for_other_classes(name):
    model = small(name)
    model.eval()
    model.reset_classifier(3, rngs=1)
    assert model.config.num_classes == 3
    assert jax.eval_shape(lambda: model.head(model.features(IMAGES)[-1])).shape == (2, 3)
    model.reset_classifier(0)
    assert model.classifier is None
    model.reset_classifier(2)
    assert jax.eval_shape(lambda: model(IMAGES)).shape == (2, 2)


@each_network
def test_features_unpooled_and_pooled_by_timms_names(name):
    def calls(state):
        model = nnx.merge(graph, state)
        maps = model.forward_features(IMAGES)
        return maps, model.forward_head(maps), model.forward_head(maps, pre_logits=True)

    graph, state = nnx.split(abstract(name))
    maps, logits, pooled = jax.eval_shape(calls, state)
    assert maps.shape[-1] == abstract(name).num_features
    assert logits.shape == (2, 5)
    headless, others = nnx.split(abstract(name, num_classes=0))
    features = jax.eval_shape(lambda state: nnx.merge(headless, state)(IMAGES), others)
    assert pooled == features


def test_feature_info_speaks_timms_words():
    infos = abstract("pvt_v2_b0").feature_info
    assert infos.channels() == [4, 6]
    assert infos.reduction() == [4, 8]
    assert infos.module_name() == ["stage1", "stage2"]
    last = infos[-1]
    assert (last["num_chs"], last["reduction"], last["module"], last[1]) == (6, 8, "stage2", 6)
    tokens = abstract("deit_tiny_distilled_patch16_224").feature_info
    assert tokens.module_name() == ["block1", "block2", "tokens"]


def test_a_network_of_features_returns_maps_alone_and_a_number_means_the_last_ones():
    name = "deit_tiny_distilled_patch16_224"
    whole, last = (small(name, features_only=True, out_indices=chosen) for chosen in (None, 1))
    assert whole.feature_info.module_name() == ["block1", "block2"]
    assert last.feature_info.module_name() == ["block2"]
    assert last.out_indices == (1,)
    assert jax.eval_shape(lambda: last(IMAGES)).block2.shape == (2, 4, 4, 6)
    for none in (0, ()):
        with pytest.raises(ValueError, match="has 2 maps, block1, block2; give a list of numbers"):
            small(name, features_only=True, out_indices=none)


# Float32 outputs of 64 x 64 images without pooling, as timm's of the same name.
UNPOOLED = {
    "van_lska_tiny": (2, 8, 8, 6),
    "convnext_tiny": (2, 8, 8, 6),
    "swin_tiny_patch4_window7_224": (2, 8, 8, 6),
    "pvt_v2_b0": (2, 8, 8, 6),
    "unireplknet_a": (2, 8, 8, 6),
    "deit_tiny_patch16_224": (2, 17, 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNPOOLED)
def test_features_without_pooling_are_what_the_classifier_pools(name):
    fields = SMALL.get(name, SMALL["deit_tiny_distilled_patch16_224"])
    model = create_model(name, **{**fields, "num_classes": 0}, global_pool="")
    model.eval()
    found = nnx.jit(lambda model: model(IMAGES))(model)
    assert found.shape == UNPOOLED[name]
    assert found.dtype == jnp.float32
    steps = nnx.jit(lambda model: model.forward_head(model.forward_features(IMAGES)))(model)
    np.testing.assert_allclose(steps, found, atol=1e-6)
    own = type(model).global_pool
    model.reset_classifier(0, own)
    assert model(IMAGES).shape == (2, 6)
    model.reset_classifier(3, own)
    np.testing.assert_allclose(
        nnx.jit(lambda model: model.forward_head(model.forward_features(IMAGES)))(model),
        model(IMAGES),
        atol=1e-6,
    )


@pytest.mark.slow
def test_a_folded_network_pools_as_the_one_it_is_of():
    name = "van_lska_tiny"
    model = create_model(name, **{**SMALL[name], "num_classes": 0}, global_pool="")
    model.eval()
    np.testing.assert_allclose(fold_batch_norm(model)(IMAGES), model(IMAGES), atol=1e-4)


def test_poolings_that_there_are_not_are_refused():
    model = small("van_lska_tiny")
    with pytest.raises(ValueError, match="global_pool='max': VAN takes 'avg' or ''"):
        model.reset_classifier(0, "max")
    with pytest.raises(ValueError, match="unpooled, and a classifier of 3 classes .*num_classes=0"):
        model.reset_classifier(3, "")
    assert model.num_classes == 5
    with pytest.raises(ValueError, match="InceptionNeXt takes 'avg'"):
        small("inception_next_tiny", num_classes=0, global_pool="")
    with pytest.raises(ValueError, match="global_pool='max' is none of 'avg', 'token', ''"):
        create_model("van_lska_tiny", global_pool="max")
    with pytest.raises(TypeError, match="leave out head and global_pool"):
        create_model("van_lska_tiny", features_only=True, global_pool="")


def test_timms_words_for_the_classifier():
    model = small("inception_next_tiny")
    assert (model.num_classes, model.num_features, model.head_hidden_size) == (5, 16, 48)
    assert model.get_classifier() is model.classifier
    distilled = small("deit_tiny_distilled_patch16_224")
    assert len(distilled.get_classifier()) == 2
    distilled.reset_classifier(0)
    assert distilled.get_classifier() is None


@pytest.mark.slow
def test_pooled_features_are_what_the_classifier_takes():
    model = small("van_lska_tiny")
    maps = model.forward_features(IMAGES)
    pooled = model.forward_head(maps, pre_logits=True)
    np.testing.assert_array_equal(pooled, model.pool(maps))
    np.testing.assert_array_equal(model.forward_head(maps), model.classifier(pooled))
    assert model.classifier is not None


def test_a_fresh_classifier_leaves_everything_else_alone():
    model = small("inception_next_tiny")
    before = model.hidden.kernel[...]
    model.reset_classifier(9)
    np.testing.assert_array_equal(model.hidden.kernel[...], before)


def test_a_network_is_shown_in_a_line():
    model = small("van_lska_tiny")
    assert repr(model).startswith("VAN(a VAN with lska, k=23, dims=(4, 6)")
    assert repr(model).endswith(" parameters, float32)")
    assert len(repr(model)) < 200
    assert repr(fold_batch_norm(model)).startswith("FoldedVAN(")
