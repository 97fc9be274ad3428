"""Logits, maps, loss, gradients and statistics against the reference PyTorch models."""

import functools
import math

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lska_jax import VAN
from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.table import section_of
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.weights import load_state_dict
from lska_jax.weights.names.van import NAMES
from lska_jax.weights.pretrained import build_from_arrays

# Stored case -> model and its k. Every change is held to both attentions, both depths and an odd
# size; other sites run the same code, and their kernels are held to a table of their own.
CASES = {
    "lska_tiny_k23__96x96": ("van_lska_tiny", 23),
}
MORE_CASES = {
    "lka_small__65x97": ("van_lka_small", 23),
    "lska_tiny_k7__96x96": ("van_lska_tiny", 7),
    "lska_tiny_k11__96x96": ("van_lska_tiny", 11),
    "lska_tiny_k23__65x97": ("van_lska_tiny", 23),
    "lska_tiny_k53__224x224": ("van_lska_tiny", 53),
    "lska_small_k35__96x96": ("van_lska_small", 35),
    "lka_tiny__96x96": ("van_lka_tiny", 23),
}
TRAINED = "lska_tiny_k23__64x64_train"


def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(golden_weights.GOLDEN / f"{case}.npz") as stored:
        return dict(stored)


def torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    if len(shape) == 2:
        return shape[::-1] if path.startswith("classifier") else (*shape[::-1], 1, 1)
    return shape


def to_torch(path: str, array: np.ndarray) -> np.ndarray:
    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return turned.reshape(torch_shape(path, array.shape))


@functools.cache
def loaded(name: str, k: int) -> VAN:
    config = config_of(section_of(name, k=k))
    shapes = array_shapes(config)
    # From zeros: drawing initial values would take longer than loading others.
    zeros = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    model = build_from_arrays(config, zeros, rngs=nnx.Rngs(0))
    state_dict = {}
    for path, shape in shapes.items():
        reference, _ = NAMES.name_of(path, variant=model.config.attention)
        state_dict[reference] = golden_weights.weight(reference, torch_shape(path, shape))
    load_state_dict(model, state_dict)
    model.eval()
    return model


def relative_error(ours: jax.Array, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@functools.cache
def evaluated(case: str) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    model = loaded(*{**CASES, **MORE_CASES}[case])
    height, width = map(int, case.rsplit("__", 1)[1].split("x"))
    images = jnp.asarray(golden_weights.images(len(golden(case)["logits"]), height, width))
    # The weights are an argument: as constants they would be stored with the compiled program.
    maps = nnx.jit(lambda model, images: model.features(images))(model, images)
    return model.head(maps[-1]), maps


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in MORE_CASES)]
)
def test_logits_equal_the_reference(case):
    logits, _ = evaluated(case)
    # Float32 rounding through 10 to 13 blocks; 8e-7 was the worst seen.
    assert relative_error(logits, golden(case)["logits"]) < 1e-5


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_stage_maps_equal_the_reference(stage):
    case = "lska_tiny_k23__96x96"
    _, maps = evaluated(case)
    tokens = golden(case)[f"stage{stage}_tokens"]
    # Float32 rounding through 3 to 13 blocks.
    assert relative_error(maps[stage - 1].reshape(tokens.shape), tokens) < 1e-5


@functools.cache
def trained() -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return loss, gradients and statistics after one step."""
    model = loaded("van_lska_tiny", 23)
    functions = ModelFunctions(model)
    images = jnp.asarray(golden_weights.images(4, 64, 64))
    labels = jnp.arange(4) * 7 % 1000
    stats = batch_stats(model)

    @jax.jit
    def run(params):
        def loss(params):
            logits, updated = functions.train(params, stats, images, key=jax.random.key(0))
            log_probabilities = jax.nn.log_softmax(logits)
            return -jnp.mean(log_probabilities[jnp.arange(4), labels]), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradients, updated

    value, gradients, updated = jax.tree.map(np.asarray, run(parameters(model)))
    return float(value), gradients, updated


def named(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays by reference name, in PyTorch layout."""
    return {
        NAMES.name_of(path, variant="lska")[0]: to_torch(path, array)
        for path, array in arrays.items()
    }


def test_the_training_loss_equals_the_reference():
    # Float32 rounding through 13 blocks normalised by batch statistics.
    assert trained()[0] == pytest.approx(float(golden(TRAINED)["train_loss"]), rel=1e-5)


@pytest.mark.slow
def test_logits_stored_with_the_training_step_are_those_of_evaluation_before_it():
    model = loaded("van_lska_tiny", 23)
    images = jnp.asarray(golden_weights.images(4, 64, 64))
    logits = nnx.jit(lambda model, images: model(images))(model, images)
    assert relative_error(logits, golden(TRAINED)["logits"]) < 1e-5


def test_every_parameter_has_a_stored_gradient():
    stored = {name.removeprefix("grad/") for name in golden(TRAINED) if name.startswith("grad/")}
    assert stored == set(named(trained()[1]))


# The BatchNorm behind them takes away whatever these biases add.
CANCELLED = ("proj.bias",)


def is_cancelled(name: str) -> bool:
    return name.startswith("patch_embed") and name.endswith(CANCELLED)


def test_gradients_equal_the_reference_in_norm_and_along_a_probe():
    stored = golden(TRAINED)
    errors = {}
    for name, gradient in named(trained()[1]).items():
        if is_cancelled(name):
            continue
        norm, probe = stored[f"grad/{name}"]
        direction = golden_weights.normal(f"probe/{name}", gradient.shape)
        ours = gradient.astype(np.float64)
        # A probe sees the whole array: its size is that of the norm, not of its own sum.
        errors[name] = max(
            abs(np.linalg.norm(ours) - norm) / norm, abs((ours * direction).sum() - probe) / norm
        )
    # Float32 through a forward and a backward pass of 13 blocks.
    assert {name: error for name, error in errors.items() if not error < 1e-4} == {}


def test_gradients_of_biases_ahead_of_a_batch_norm_are_zero_as_in_the_reference():
    stored = golden(TRAINED)
    gradients = {n: g for n, g in named(trained()[1]).items() if is_cancelled(n)}
    assert len(gradients) == 4
    for name, gradient in gradients.items():
        # Zero in exact arithmetic: rounding noise on both sides, beside norms of the weights'
        # gradients of the same convolution.
        weights_norm = stored[f"grad/{name.replace('bias', 'weight')}"][0]
        assert np.linalg.norm(gradient) < 1e-4 * weights_norm
        assert stored[f"grad/{name}"][0] < 1e-4 * weights_norm


def elements_a_channel(name: str) -> int:
    """Return the batch and positions that a BatchNorm of the training case averages over."""
    stage = int(name.removeprefix("patch_embed").removeprefix("block")[0])
    return 4 * (64 // 2 ** (stage + 1)) ** 2


def test_statistics_after_one_step_equal_the_reference():
    stored = golden(TRAINED)
    before = named(batch_stats(loaded("van_lska_tiny", 23)))
    errors = {}
    for name, statistic in named(trained()[2]).items():
        if name.endswith("var"):
            # PyTorch moves towards the unbiased variance, n / (n - 1) times the biased one.
            n = elements_a_channel(name)
            biased = (statistic - 0.9 * np.asarray(before[name])) / 0.1
            statistic = 0.9 * np.asarray(before[name]) + 0.1 * biased * n / (n - 1)
        norm = stored[f"bn/{name}"].item()
        errors[name] = abs(np.linalg.norm(statistic.astype(np.float64)) - norm) / norm
    assert len(errors) == len([name for name in stored if name.startswith("bn/")])
    # Float32 rounding.
    assert {name: error for name, error in errors.items() if not error < 1e-5} == {}


def test_the_probes_differ_enough_to_catch_a_transposed_kernel():
    gradient = named(trained()[1])["block1.0.mlp.dwconv.dwconv.weight"].astype(np.float64)
    name = "block1.0.mlp.dwconv.dwconv.weight"
    norm, probe = golden(TRAINED)[f"grad/{name}"]
    direction = golden_weights.normal(f"probe/{name}", gradient.shape)
    assert abs((gradient.transpose(0, 1, 3, 2) * direction).sum() - probe) > 1e-2 * norm
    assert math.isclose(np.linalg.norm(gradient), norm, rel_tol=1e-4)
