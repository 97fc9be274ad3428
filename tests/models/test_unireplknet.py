"""UniRepLKNet: one block by brute force, merged kernels, sizes and errors."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_baselines import (
    relative_error,
)

from lska_jax import create_model, fold_batch_norm
from lska_jax.analysis.complexity import module_cost, network_cost
from lska_jax.models.build import config_of
from lska_jax.models.table import section_of
from lska_jax.models.unireplknet import Block, GlobalResponseNorm, UniRepLKNet
from lska_jax.models.unireplknet_config import UniRepLKNetConfig
from lska_jax.models.unireplknet_fold import abstract_folded
from lska_jax.nn.functional import ModelFunctions, assign, batch_stats, flat_values, parameters
from lska_jax.weights.export_jax import export_model
from lska_jax.weights.export_torch import export_checkpoint
from lska_jax.weights.import_torch import import_checkpoint
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import write_model_folder
from lska_jax.weights.pretrained import arrays_of

TINY = {"dims": (4, 8), "depths": (1, 1), "large_every": (0, 1), "num_classes": 5}
# A block of each kind is enough for what says nothing new of more.
ONE_LARGE = {"dims": (4,), "depths": (2,), "large_every": (2,), "num_classes": 5}
# Parameters with merged kernels.
MERGED = {
    "unireplknet_a": 4_437_300,
    "unireplknet_f": 6_235_216,
    "unireplknet_p": 10_741_704,
    "unireplknet_n": 18_318_560,
    "unireplknet_t": 31_037_980,
    "unireplknet_s": 55_645_984,
}


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tiny(**config) -> UniRepLKNet:
    return create_model("unireplknet_a", **{**TINY, **config})


def random_arrays(model: nnx.Module) -> dict[str, np.ndarray]:
    """Return values for every array, none of them as it starts."""
    rng = np.random.default_rng(1)
    return {
        path: (np.exp if path.endswith("/var") else np.asarray)(
            0.3 * rng.standard_normal(array.shape)
        ).astype(np.float32)
        for path, array in {**parameters(model), **batch_stats(model)}.items()
    }


def random_tiny(**config) -> UniRepLKNet:
    model = tiny(**config)
    assign(model, jax.tree.map(jnp.asarray, random_arrays(model)))
    model.eval()
    return model


def size(model: nnx.Module) -> int:
    """Return how many parameters a model has, real or abstract."""
    return sum(array.size for array in flat_values(nnx.state(model, nnx.Param)).values())


@nnx.jit
def logits_and_maps(model: UniRepLKNet, images: jax.Array):
    return model(images), model.features(images)


@pytest.mark.parametrize(
    "name",
    [
        name if name.endswith("_a") else pytest.param(name, marks=pytest.mark.slow)
        for name in MERGED
    ],
)
def test_parameters_are_those_of_the_merged_reference(name):
    assert size(abstract_folded(config_of(section_of(name)))) == MERGED[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", MERGED)
def test_a_merged_network_costs_what_evaluation_does(name):
    config = config_of(section_of(name, implementation="xla"))
    cost = module_cost(abstract_folded(config), (224, 224, 3))
    assert (cost.parameters, cost.macs) == (MERGED[name], network_cost(config).macs)


def brute_force_block(x: np.ndarray, a: dict[str, np.ndarray]) -> np.ndarray:
    """Return a large block's output in float64, tap by tap, from the block's arrays by path."""

    def normalised(x: np.ndarray, norm: str) -> np.ndarray:
        deviation = np.sqrt(a[f"{norm}/var"] + 1e-5)
        return (x - a[f"{norm}/mean"]) / deviation * a[f"{norm}/scale"] + a[f"{norm}/bias"]

    height, width = x.shape[1:3]
    mixed = np.zeros_like(x)
    for branch, (size, dilation) in enumerate(
        [(13, 1), (5, 1), (7, 2), (3, 3), (3, 4), (3, 5)]  # as the paper lists them for 13
    ):
        kernel, out = a[f"mixer/branches/{branch}/conv/kernel"], np.zeros_like(x)
        for row, column, u, v in np.ndindex(height, width, size, size):
            i, j = row + dilation * (u - size // 2), column + dilation * (v - size // 2)
            if 0 <= i < height and 0 <= j < width:
                out[:, row, column] += x[:, i, j] * kernel[u, v, 0]
        mixed += normalised(out, f"mixer/branches/{branch}/norm")
    mixed = normalised(mixed, "norm")
    squeezed = mixed.mean((1, 2)) @ a["gate/down/kernel"] + a["gate/down/bias"]
    excited = np.maximum(squeezed, 0) @ a["gate/up/kernel"] + a["gate/up/bias"]
    mixed *= (1 / (1 + np.exp(-excited)))[:, None, None]
    hidden = mixed @ a["expand/kernel"] + a["expand/bias"]
    hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2)))
    norm = np.sqrt((hidden**2).sum((1, 2), keepdims=True))
    response = norm / (norm.mean(-1, keepdims=True) + 1e-6)
    hidden = (a["response_norm/gamma"] * response + 1) * hidden + a["response_norm/beta"]
    return x + a["scale/scale"] * normalised(hidden @ a["project/kernel"], "project_norm")


def test_a_large_block_is_what_brute_force_computes_of_it():
    config = UniRepLKNetConfig(**ONE_LARGE)
    block = Block(4, config, is_large=True, drop_path_rate=0.0, rngs=nnx.Rngs(0))
    arrays = random_arrays(block)
    assign(block, jax.tree.map(jnp.asarray, arrays))
    block.eval()
    x = draw(2, 5, 7, 4)
    expected = brute_force_block(
        x.astype(np.float64), {path: array.astype(np.float64) for path, array in arrays.items()}
    )
    # Float32 rounding of sums of some hundreds of products.
    assert (
        relative_error(nnx.jit(lambda block, x: block(x))(block, jnp.asarray(x)), expected) < 1e-6
    )


@pytest.mark.slow
def test_branches_side_by_side_are_what_evaluation_computes_as_one_kernel():
    mixer = random_tiny().stages[1].blocks[0].mixer
    x = jnp.asarray(draw(2, 6, 9, 8))
    side_by_side = sum((branch(x) for branch in mixer.branches), jnp.zeros_like(x))
    assert relative_error(mixer(x), np.asarray(side_by_side)) < 1e-6


def test_a_merged_network_has_the_logits_of_its_branches():
    model = random_tiny(depths=(1, 2), large_every=(0, 2), drop_path_rate=0.3)
    images = jnp.asarray(draw(2, 33, 40, 3))
    logits, maps = logits_and_maps(model, images)
    folded = fold_batch_norm(model)
    folded_logits, folded_maps = logits_and_maps(folded, images)
    for ours, theirs in zip([folded_logits, *folded_maps], [logits, *maps], strict=True):
        # Both are rounded to float32, after factors in another order.
        assert relative_error(ours, np.asarray(theirs)) < 1e-6
    assert folded.config == model.config and folded.preprocessing == model.preprocessing
    assert batch_stats(folded) == {}
    with pytest.raises(ValueError, match="folded already"):
        fold_batch_norm(folded)


@pytest.mark.slow
def test_a_merged_bfloat16_network_is_as_near_to_float32_as_an_unmerged_one():
    images = jnp.asarray(draw(2, 33, 40, 3))
    exact = np.asarray(logits_and_maps(random_tiny(), images)[0])
    model = random_tiny(dtype="bfloat16")
    (logits, maps), merged = (
        logits_and_maps(model, images),
        logits_and_maps(fold_batch_norm(model), images)[0],
    )
    assert {stage.dtype for stage in maps} == {jnp.dtype("bfloat16")}
    assert logits.dtype == merged.dtype == jnp.float32
    # Some roundings of 2**-9, after each other.
    assert relative_error(logits, exact) < 0.05
    assert relative_error(merged, exact) < 0.05


@pytest.mark.parametrize(
    ("size", "expected"),
    [((224, 224), [(56, 56), (28, 28)]), ((33, 200), [(9, 50), (5, 25)]), ((1, 1), [(1, 1)] * 2)],
)
def test_features_are_one_map_a_stage_at_any_size_and_aspect(size, expected):
    model = tiny(in_channels=1)
    model.eval()
    maps = jax.eval_shape(lambda x: model.features(x), jnp.zeros((2, *size, 1)))
    assert maps._fields == ("stage1", "stage2")
    assert [stage.shape for stage in maps] == [(2, *expected[0], 4), (2, *expected[1], 8)]


def test_without_classes_the_model_returns_normalised_pooled_features():
    model = tiny(num_classes=0)
    pooled = np.asarray(model.head(jnp.asarray(draw(3, 2, 4, 8))))
    assert pooled.shape == (3, 8)
    # LayerNorm with unit scale.
    np.testing.assert_allclose(pooled.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(pooled.std(-1), 1, atol=1e-3)


@pytest.mark.slow
def test_drop_path_is_drawn_from_the_keys_that_are_given():
    dropping = tiny(**ONE_LARGE, drop_path_rate=0.5)
    run = jax.jit(
        lambda params, stats, key: ModelFunctions(dropping).train(
            params, stats, jnp.asarray(draw(4, 8, 8, 3)), key=key
        )[0]
    )
    # The branch that is dropped begins as small as its layer scale.
    params = {
        path: jnp.ones_like(array) if path.endswith("scale/scale") else array
        for path, array in parameters(dropping).items()
    }
    one, same, other = (
        run(params, batch_stats(dropping), jax.random.key(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_map_of_zeros_has_finite_gradients_behind_its_norm():
    norm = GlobalResponseNorm(4)
    norm.gamma.set_value(jnp.ones(4))
    gradient = jax.grad(lambda x: jnp.sum(norm(x)))(jnp.zeros((1, 3, 3, 4)))
    # With no response, the norm is the identity.
    np.testing.assert_array_equal(gradient, jnp.ones((1, 3, 3, 4)))


def test_every_second_or_third_block_of_a_stage_is_large():
    def large(name: str) -> list[int]:
        config = config_of(section_of(name))
        return [block for block in range(config.depths[2]) if config.is_large(2, block)]

    assert large("unireplknet_t") == list(range(0, 18, 2))
    assert large("unireplknet_s") == list(range(0, 27, 3))


@pytest.mark.slow
def test_weights_go_through_a_file_of_the_reference_and_a_program(tmp_path):
    model = random_tiny()
    facts = ModelFacts(config=model.config, preprocessing=model.preprocessing)
    write_model_folder(tmp_path / "folder", facts, arrays_of(model))
    export_checkpoint(tmp_path / "folder", tmp_path / "file.safetensors")
    import_checkpoint(tmp_path / "file.safetensors", tmp_path / "back", report=lambda line: None)
    back = create_model(pretrained=tmp_path / "back")
    assert back.config == model.config
    before, after = arrays_of(model), arrays_of(back)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    images = jnp.asarray(draw(2, 16, 16, 3))
    logits = np.asarray(logits_and_maps(model, images)[0])
    back.preprocessing = back.preprocessing._replace(image_size=16)
    assert relative_error(export_model(back).call(images), logits) < 1e-5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"large_every": (0, 1)}, "large_every=(0, 1) must have one whole number for each of"),
        ({"large_every": (0, 1, 7, 1)}, "large_every[2]=7 must be a whole number from 0 to"),
        ({"dims": (5, 8, 8, 8)}, "dims[0]=5 must be even"),
        ({"depths": (1,)}, "need one entry for each stage"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0 must be at least 0 and below 1"),
        ({"implementation": "fast"}, "Unknown implementation 'fast'"),
    ],
)
def test_a_config_that_makes_no_network_is_refused(config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        UniRepLKNetConfig(**config)
