"""ViT, DeiT and DeiT-III: tokens, positions, heads and errors; test_families.py has the rest."""

import golden_baselines as goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from lska_jax import create_model
from lska_jax.models.build import abstract_model, array_shapes, config_of
from lska_jax.models.table import family_of, model_entry, section_of
from lska_jax.models.vit import ViT, resample_positions
from lska_jax.models.vit_config import ViTConfig, check, describe
from lska_jax.nn.functional import ModelFunctions, parameters

NARROW = {"dim": 8, "depth": 2, "heads": 2, "patch_size": 4, "position_grid": 3, "num_classes": 5}
NAMES = {
    "deit": "deit_tiny_patch16_224",
    "deit_distilled": "deit_tiny_distilled_patch16_224",
    "deit3": "deit3_small_patch16_224",
}
# The same operations, fused otherwise: float32 roundings.
FUSED = {"rtol": 1e-4, "atol": 1e-5}


def narrow(kind: str = "deit", **config) -> ViT:
    return create_model(NAMES[kind], **{**NARROW, **config})


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.slow
def test_embedded_tokens_equal_the_reference():
    case, model = "deit_tiny_patch16_224__96x64", goldens.loaded("deit_tiny_patch16_224")
    embedded = nnx.jit(lambda model, x: model.tokens(x)[0])(model, goldens.images(case))
    # Float32 rounding of sums of 768 products.
    assert goldens.relative_error(embedded, goldens.golden(case)["tokens"]) < 1e-5


@pytest.mark.parametrize(("kind", "prefix"), [("deit", 1), ("deit_distilled", 2), ("deit3", 1)])
def test_features_are_a_map_of_each_block_and_all_tokens(kind, prefix):
    maps = jax.eval_shape(narrow(kind).features, jnp.zeros((2, 8, 20, 3)))
    assert maps._fields == ("block1", "block2", "tokens")
    assert [m.shape for m in maps] == [(2, 2, 5, 8), (2, 2, 5, 8), (2, prefix + 10, 8)]


def test_maps_are_the_tokens_behind_those_in_front_row_by_row():
    @nnx.jit
    def run(model, images):
        tokens = model.tokens(images)
        return tokens, model.norm(tokens[2]), model.features(images)

    tokens, normalised, maps = run(narrow("deit_distilled"), draw(1, 8, 12, 3))
    assert len(tokens) == 3
    np.testing.assert_array_equal(maps.block2[0, 1, 2], tokens[2][0, 2 + 1 * 3 + 2])
    np.testing.assert_array_equal(maps.tokens, normalised)


def test_positions_of_another_grid_are_resampled_and_those_in_front_kept():
    positions = draw(1 + 9, 8)
    np.testing.assert_array_equal(resample_positions(positions, (3, 3), prefix_tokens=1), positions)
    wide = np.asarray(resample_positions(positions, (3, 6), prefix_tokens=1))
    np.testing.assert_array_equal(wide[0], positions[0])
    # Twice as many columns: rows are left alone, and the mean of a smooth signal with them.
    constant = jnp.ones((9, 8)) * jnp.arange(8, dtype=jnp.float32)[None]
    spread = resample_positions(constant, (2, 5), prefix_tokens=0)
    np.testing.assert_allclose(spread, constant[:1].repeat(10, 0), rtol=1e-6)


@pytest.mark.parametrize("size", [(224, 200), (8, 224)])
def test_sides_that_are_no_multiples_of_a_patch_are_refused_with_what_is_allowed(size):
    model = abstract_model(config_of(section_of("deit_tiny_patch16_224", depth=1)))
    with pytest.raises(ValueError, match=f"multiples of 16, got {size[0]} x {size[1]}"):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, *size, 3))), model)


def test_the_distilled_networks_logits_are_the_mean_of_both_heads_in_training_too():
    @nnx.jit
    def run(model, images):
        tokens = model.features(images)[-1]
        one_by_one = model.classifier(tokens[:, 0]), model.distillation_classifier(tokens[:, 1])
        return model(images), model.logits_of_tokens(tokens), one_by_one

    logits, both, one_by_one = run(narrow("deit_distilled"), draw(2, 12, 12, 3))
    np.testing.assert_allclose(both, one_by_one, **FUSED)
    assert np.abs(both[0] - both[1]).max() > 1e-3
    np.testing.assert_allclose(logits, (both[0] + both[1]) / 2, **FUSED)


def test_other_networks_have_the_logits_of_the_class_token_alone():
    model = narrow("deit3")
    (logits,) = model.logits_of_tokens(draw(2, 4, 8))
    np.testing.assert_allclose(logits, model.classifier(draw(2, 4, 8)[:, 0]), **FUSED)


@pytest.mark.parametrize("kind", [pytest.param("deit", marks=pytest.mark.slow), "deit_distilled"])
def test_without_classes_the_model_returns_its_tokens_in_front(kind):
    run = nnx.jit(lambda model, images: (model(images), model.features(images)[-1]))
    pooled, tokens = run(narrow(kind, num_classes=0), draw(2, 12, 12, 3))
    in_front = 2 if kind == "deit_distilled" else 1
    np.testing.assert_allclose(pooled, np.mean(tokens[:, :in_front], 1), **FUSED)


def test_a_block_adds_its_scaled_branches_one_after_the_other():
    block = narrow("deit3").blocks[0]
    for scale, value in ((block.scale_1, 0.5), (block.scale_2, 2.0)):
        # DeiT-III starts from branches of nearly nothing.
        np.testing.assert_array_equal(scale.scale[...], np.full(8, 1e-6, np.float32))
        scale.scale.set_value(jnp.full(8, value))

    @nnx.jit
    def run(block, x):
        middle = x + 0.5 * block.attention(block.norm_1(x))
        return block(x), middle + 2.0 * block.mlp(block.norm_2(middle))

    np.testing.assert_allclose(*run(block, draw(2, 5, 8)), **FUSED)


def test_drop_path_drops_whole_images():
    model = narrow(drop_path_rate=0.5)
    dropped = np.asarray(model.blocks[1].drop_path(jnp.ones((50, 2, 8)), rngs=nnx.Rngs(0)))
    assert {float(image.std()) for image in dropped} == {0}
    assert set(np.unique(dropped)) == {0, 2}


@pytest.mark.slow
def test_gradients_mapped_over_two_devices_are_those_of_one():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    model, images = narrow("deit3"), draw(4, 8, 12, 3)
    functions, params = ModelFunctions(model), parameters(model)
    split, whole = PartitionSpec("data"), PartitionSpec()

    def loss(params, images):
        logits, _ = functions.train(params, {}, images, key=jax.random.key(5))
        return jnp.sum(jnp.square(logits))

    def total(params, images):
        return jax.lax.psum(loss(params, images), "data")

    mapped = jax.shard_map(total, mesh=mesh, in_specs=(whole, split), out_specs=whole)
    found = jax.jit(jax.grad(mapped))(params, images)
    for path, gradient in jax.jit(jax.grad(loss))(params, images).items():
        scale = np.abs(gradient).max() + 1e-3
        np.testing.assert_allclose(found[path] / scale, gradient / scale, atol=1e-4, err_msg=path)


def test_positions_are_spared_from_decay():
    family = family_of(ViTConfig())
    spared = [path for path in array_shapes(ViTConfig()) if path.endswith(family.no_decay)]
    assert spared == ["positions"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "beit"}, "kind='beit' is unknown; allowed: vit, deit"),
        ({"heads": 5}, "heads=5 do not divide dim=192"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"patch_size": 1.5}, "patch_size=1.5 must be a whole number"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and below 1"),
        ({"remat": "yes"}, "remat='yes' must be True or False"),
    ],
)
def test_fields_that_make_no_network_are_named(config, message):
    (problem,) = check({**family_of(ViTConfig()).defaults, **config})
    assert problem.startswith(message)


def test_a_config_that_makes_no_network_is_refused():
    with pytest.raises(ValueError, match="heads=5 do not divide dim=192"):
        ViTConfig(heads=5)


def test_a_vit_is_told_from_the_deit_of_its_size():
    vit, deit = (f"{kind}_tiny_patch16_224" for kind in ("vit", "deit"))
    for name, mean in ((vit, 0.5), (deit, 0.485)):
        config = config_of(section_of(name))
        assert describe(config) == f"{name}, 1000 classes"
        assert model_entry(name).preprocessing.mean[0] == mean
        assert abstract_model(config).preprocessing.mean[0] == mean


def test_what_a_name_does_not_say_is_described():
    assert describe(ViTConfig(**{**NARROW, "dim": 192, "depth": 12, "heads": 3})) == (
        "deit_tiny_patch16_224, patch_size=4, position_grid=3, 5 classes"
    )
    assert describe(ViTConfig(**{**NARROW, "num_classes": 0, "in_channels": 1})) == (
        "a Vision Transformer of the kind deit, dim=8, depth=2, heads=2, patch_size=4, "
        "position_grid=3, no head, 1 input channels"
    )
