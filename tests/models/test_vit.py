"""ViT, DeiT and DeiT-III: golden outputs, costs, sizes, heads, modes and errors."""

import math

import golden_baselines as goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from lska_jax import create_model
from lska_jax.analysis.complexity import network_cost
from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.table import family_of, model_entry, section_of
from lska_jax.models.vit import ViT, resample_positions
from lska_jax.models.vit_config import ViTConfig, check, describe
from lska_jax.nn.functional import ModelFunctions, parameters

CASES = ("deit_tiny_patch16_224__96x64", "deit_tiny_patch16_224__96x64_small")
MORE_CASES = (
    "deit_tiny_patch16_224__224x224",
    "deit_small_patch16_224__256x192",
    "deit_small_distilled_patch16_224__224x224",
    "deit3_small_patch16_224__96x128",
    "vit_small_patch16_224__160x288",
)
TRAINED = "deit_tiny_patch16_224__96x64_train"
# Parameters at 1000 classes, and multiply-accumulates at 224 x 224 in units of 1e9, of timm's.
COSTS = {
    "deit_tiny_patch16_224": (5_717_416, 1.254),
    "deit_small_patch16_224": (22_050_664, 4.599),
    "deit_base_patch16_224": (86_567_656, 17.564),
    "deit_tiny_distilled_patch16_224": (5_910_800, 1.261),
    "deit_small_distilled_patch16_224": (22_436_432, 4.624),
    "deit_base_distilled_patch16_224": (87_338_192, 17.657),
    "deit3_small_patch16_224": (22_059_496, 4.599),
    "deit3_medium_patch16_224": (38_849_512, 7.991),
    "deit3_base_patch16_224": (86_585_320, 17.564),
    "vit_tiny_patch16_224": (5_717_416, 1.254),
    "vit_small_patch16_224": (22_050_664, 4.599),
    "vit_base_patch16_224": (86_567_656, 17.564),
}
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


def training_step(model: ViT, images: jax.Array):
    """Return a function of parameters to logits and gradients."""
    functions = ModelFunctions(model)

    def loss(params, images):
        logits, _ = functions.train(params, {}, images, key=jax.random.key(5))
        return jnp.sum(jnp.square(logits)), logits

    return lambda params: jax.value_and_grad(loss, has_aux=True)(params, images)


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
def test_logits_equal_the_reference(case):
    logits, _ = goldens.evaluated(case)
    # Float32 rounding through 12 blocks; 1.4e-6 was the worst seen.
    assert goldens.relative_error(logits, goldens.golden(case)["logits"]) < 1e-5


def test_tokens_and_maps_equal_the_reference():
    stored, model = goldens.golden(CASES[0]), goldens.loaded("deit_tiny_patch16_224")
    _, maps = goldens.evaluated(CASES[0])
    embedded = nnx.jit(lambda model, x: model.tokens(x)[0])(model, goldens.images(CASES[0]))
    assert goldens.relative_error(embedded, stored["tokens"]) < 1e-5
    assert goldens.relative_error(maps.tokens, stored["norm_tokens"]) < 1e-5
    for block in (0, 5, 11):
        patches = stored[f"block{block}_tokens"][:, 1:].reshape(1, 6, 4, 192)
        assert goldens.relative_error(maps[block], patches) < 1e-5


def test_training_loss_and_every_gradient_equal_the_reference():
    expected = goldens.golden(TRAINED)["train_loss"].item()
    assert goldens.trained(TRAINED)[0] == pytest.approx(expected, rel=1e-5)
    errors = goldens.gradient_errors(TRAINED)
    # Float32 through a forward and a backward pass of 12 blocks.
    assert {name: error for name, error in errors.items() if not error < 1e-4} == {}


@pytest.mark.parametrize("name", COSTS)
def test_parameters_are_those_of_the_reference(name):
    shapes = array_shapes(config_of(section_of(name)))
    assert sum(map(math.prod, shapes.values())) == COSTS[name][0]


@pytest.mark.parametrize(
    "name",
    [
        name if "deit_tiny_p" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in COSTS
    ],
)
def test_multiply_accumulates_are_those_of_the_reference(name):
    assert round(network_cost(config_of(section_of(name))).macs / 1e9, 3) == COSTS[name][1]


@pytest.mark.parametrize(("kind", "prefix"), [("deit", 1), ("deit_distilled", 2), ("deit3", 1)])
def test_features_are_a_map_of_each_block_and_all_tokens(kind, prefix):
    maps = jax.eval_shape(narrow(kind).features, jnp.zeros((2, 8, 20, 3)))
    assert maps._fields == ("block1", "block2", "tokens")
    assert [m.shape for m in maps] == [(2, 2, 5, 8), (2, 2, 5, 8), (2, prefix + 10, 8)]


def test_maps_are_the_tokens_behind_those_in_front_row_by_row():
    model, images = narrow("deit_distilled"), draw(1, 8, 12, 3)
    tokens, maps = model.tokens(images), model.features(images)
    assert len(tokens) == 3
    np.testing.assert_array_equal(maps.block2[0, 1, 2], tokens[2][0, 2 + 1 * 3 + 2])
    np.testing.assert_array_equal(maps.tokens, model.norm(tokens[2]))


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
    model = jax.eval_shape(lambda: create_model("deit_tiny_patch16_224", depth=1))
    with pytest.raises(ValueError, match=f"multiples of 16, got {size[0]} x {size[1]}"):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, *size, 3))), model)


def test_the_distilled_networks_logits_are_the_mean_of_both_heads_in_training_too():
    model, images = narrow("deit_distilled"), draw(2, 12, 12, 3)
    tokens = model.features(images)[-1]
    by_class, by_teacher = model.logits_of_tokens(tokens)
    np.testing.assert_allclose(by_class, model.classifier(tokens[:, 0]), **FUSED)
    np.testing.assert_allclose(by_teacher, model.distillation_classifier(tokens[:, 1]), **FUSED)
    assert np.abs(by_class - by_teacher).max() > 1e-3
    np.testing.assert_allclose(model(images), (by_class + by_teacher) / 2, **FUSED)


def test_other_networks_have_the_logits_of_the_class_token_alone():
    model = narrow("deit3")
    (logits,) = model.logits_of_tokens(draw(2, 4, 8))
    np.testing.assert_allclose(logits, model.classifier(draw(2, 4, 8)[:, 0]), **FUSED)


@pytest.mark.parametrize("kind", ["deit", "deit_distilled"])
def test_without_classes_the_model_returns_its_tokens_in_front(kind):
    model, images = narrow(kind, num_classes=0), draw(2, 12, 12, 3)
    tokens = model.features(images)[-1]
    in_front = 2 if kind == "deit_distilled" else 1
    np.testing.assert_allclose(model(images), np.mean(tokens[:, :in_front], 1), **FUSED)


def test_a_block_adds_its_scaled_branches_one_after_the_other():
    block = narrow("deit3").blocks[0]
    for scale, value in ((block.scale_1, 0.5), (block.scale_2, 2.0)):
        # DeiT-III starts from branches of nearly nothing.
        np.testing.assert_array_equal(scale.scale[...], np.full(8, 1e-6, np.float32))
        scale.scale.set_value(jnp.full(8, value))
    x = draw(2, 5, 8)
    middle = x + 0.5 * block.attention(block.norm_1(x))
    expected = middle + 2.0 * block.mlp(block.norm_2(middle))
    np.testing.assert_allclose(block(x), expected, **FUSED)


@pytest.mark.parametrize("kind", ["deit_distilled", "deit3"])
def test_gradients_are_finite_with_dropout_and_drop_path(kind):
    model = narrow(kind, drop_rate=0.2, drop_path_rate=0.5)
    params = parameters(model)
    (_, logits), gradients = jax.jit(training_step(model, draw(4, 8, 12, 3)))(params)
    assert logits.shape == (4, 5)
    assert gradients.keys() == params.keys()
    assert all(np.isfinite(g).all() and np.any(g != 0) for g in gradients.values())


def test_drop_path_grows_linearly_and_drops_whole_images():
    model = narrow(depth=3, drop_path_rate=0.5)
    assert [block.drop_path.rate for block in model.blocks] == [0, 0.25, 0.5]
    dropped = np.asarray(model.blocks[2].drop_path(jnp.ones((50, 2, 8)), rngs=nnx.Rngs(0)))
    assert {float(image.std()) for image in dropped} == {0}
    assert set(np.unique(dropped)) == {0, 2}


@pytest.mark.slow
def test_rematerialisation_changes_neither_logits_nor_gradients():
    found = []
    for remat in (False, True):
        model = narrow(drop_rate=0.2, drop_path_rate=0.3, remat=remat)
        found.append(jax.jit(training_step(model, draw(4, 8, 12, 3)))(parameters(model)))
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, **FUSED)


@pytest.mark.slow
def test_gradients_over_two_devices_are_those_of_one():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    model, images = narrow("deit3"), draw(4, 8, 12, 3)
    expected = jax.jit(training_step(model, images))(parameters(model))[1]
    functions = ModelFunctions(model)
    split, whole = PartitionSpec("data"), PartitionSpec()

    def total(params, images):
        logits, _ = functions.train(params, {}, images, key=jax.random.key(5))
        return jax.lax.psum(jnp.sum(jnp.square(logits)), "data")

    mapped = jax.shard_map(total, mesh=mesh, in_specs=(whole, split), out_specs=whole)
    found = [
        jax.jit(jax.grad(mapped))(parameters(model), images),
        jax.jit(jax.grad(lambda p, x: jnp.sum(jnp.square(functions.evaluate(p, {}, x)))))(
            parameters(model), jax.device_put(images, jax.NamedSharding(mesh, split))
        ),
    ]
    for gradients in found:
        for path, gradient in expected.items():
            scale = np.abs(gradient).max() + 1e-3
            np.testing.assert_allclose(
                gradients[path] / scale, gradient / scale, atol=1e-4, err_msg=path
            )


def test_bfloat16_keeps_parameters_and_logits_in_float32_and_is_near():
    images = draw(2, 12, 12, 3)
    model = narrow(dtype=jnp.bfloat16)
    assert {p.dtype for p in parameters(model).values()} == {jnp.dtype("float32")}
    maps, exact = nnx.jit(lambda m: m.features(images))(model), narrow().features(images)
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(model.head, maps[-1]).dtype == jnp.float32
    # Roundings of 2**-9 of normalised values up to 3, through two blocks.
    assert np.abs(np.asarray(maps[-1], np.float32) - exact[-1]).max() < 0.1


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
        assert jax.eval_shape(lambda c=config: ViT(c, rngs=0)).preprocessing.mean[0] == mean


def test_what_a_name_does_not_say_is_described():
    assert describe(narrow(dim=192, depth=12, heads=3).config) == (
        "deit_tiny_patch16_224, patch_size=4, position_grid=3, 5 classes"
    )
    assert describe(narrow(num_classes=0, in_channels=1).config) == (
        "a Vision Transformer of the kind deit, dim=8, depth=2, heads=2, patch_size=4, "
        "position_grid=3, no head, 1 input channels"
    )
