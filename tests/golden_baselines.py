"""Networks with golden weights against golden outputs, by the names of timm's checkpoints.

A case is a file of ``tests/golden``: MODEL__HEIGHTxWIDTH.npz, ..._small.npz (activations so small
that a norm's epsilon shows), ..._train.npz (loss, gradients and statistics of one step).
"""

import functools
import math
from typing import Any
from unittest import mock

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.table import family_of, load_capability, section_of
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.nn.layers import BATCH_NORM_MOMENTUM, BatchNorm
from lska_jax.weights.names.rows import Layout
from lska_jax.weights.pretrained import build_from_arrays


def golden(case: str) -> dict[str, np.ndarray]:
    """Return the stored outputs of a case."""
    with np.load(golden_weights.GOLDEN / f"{case}.npz") as stored:
        return dict(stored)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the golden value of one array of a checkpoint, in PyTorch layout."""
    n, last = golden_weights.normal(name, shape), name.rpartition(".")[2]
    if last in ("pos_embed", "cls_token", "dist_token", "beta"):
        return 0.2 * n
    if last == "gamma":
        return 0.2 + 0.05 * n
    return golden_weights.weight(name, shape)


def small_factor(name: str, shape: tuple[int, ...]) -> np.float32:
    """Return what the arrays of a ``_small`` case are multiplied with."""
    last = name.rpartition(".")[2]
    if last == "running_var":
        return np.float32(1e-4)
    is_kept = name.startswith("head") or last == "gamma" or (last == "weight" and len(shape) == 1)
    return np.float32(1 if is_kept else 0.01)


@functools.lru_cache(maxsize=1)
def arrays_of_config(config: Any) -> dict[str, np.ndarray]:
    """Return the golden arrays of a network by our paths."""
    arrays = {}
    for path, (name, shape, layout) in _torch_arrays(config).items():
        arrays[path] = layout.array(weight(name, shape).astype(np.float32))
    return arrays


def _torch_arrays(config: Any) -> dict[str, tuple[str, tuple[int, ...], Layout]]:
    """Return {our path: name and shape in PyTorch, layout}."""
    names, found = load_capability(family_of(config), "names"), {}
    for path, shape in array_shapes(config).items():
        name, layout = names.name_of(path, variant=names.variant_of(config))
        found[path] = name, layout.torch_shape(shape), layout
    return found


@functools.cache
def loaded(model: str, *, is_small: bool = False) -> Any:
    """Return a model with golden weights, in evaluation mode."""
    return network_of(config_of(section_of(model)), is_small=is_small)


def network_of(config: Any, *, is_small: bool = False) -> Any:
    """Return a config's network with golden weights, in evaluation mode."""
    arrays = arrays_of_config(config)
    if is_small:
        named = _torch_arrays(config)
        arrays = {path: small_factor(*named[path][:2]) * a for path, a in arrays.items()}
    network = build_from_arrays(config, arrays, rngs=nnx.Rngs(0))
    network.eval()
    return network


def parsed(case: str) -> tuple[str, int, int, str]:
    """Return model, height, width and kind ("", "small" or "train") of a case."""
    model, _, rest = case.rpartition("__")
    size, _, kind = rest.partition("_")
    height, width = map(int, size.split("x"))
    return model, height, width, kind


def images(case: str) -> jax.Array:
    """Return the normalised images of a case."""
    _, height, width, kind = parsed(case)
    stored = golden(case)
    # Training steps store no logits: they are of two images, with BatchNorm of four.
    trained = 4 if any(name.startswith("bn/") for name in stored) else 2
    batch = trained if kind == "train" else len(stored["logits"])
    return jnp.asarray(golden_weights.images(batch, height, width))


def relative_error(ours: Any, theirs: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    return float(np.abs(np.asarray(ours).reshape(theirs.shape) - theirs).max() / abs(theirs).max())


@functools.cache
def evaluated(case: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return logits and feature maps of a case."""
    model, _, _, kind = parsed(case)
    network = loaded(model, is_small=kind == "small")
    return jax.tree.map(np.asarray, logits_and_maps(network, images(case)))


@nnx.jit
def logits_and_maps(network: Any, images: jax.Array) -> Any:
    """Return logits and feature maps; cases of one size and model share the program."""
    maps = network.features(images)
    return network.head(maps[-1]), maps


def output_errors(case: str) -> dict[str, float]:
    """Return {output: relative error} of a case's logits and of the maps that are stored."""
    stored, (logits, maps) = golden(case), evaluated(case)
    found = {"logits": logits}
    for number, of_stage in enumerate(maps):
        found[f"stage{number}_map"] = of_stage
        # A vision transformer's: its tokens, of which the first is the class token.
        found[f"block{number}_tokens"] = of_stage
    found["norm_tokens"] = maps[-1]
    errors = {}
    for name in sorted(stored.keys() & found.keys()):
        expected = stored[name][:, 1:] if name.startswith("block") else stored[name]
        errors[name] = relative_error(found[name], expected)
    return errors


@functools.cache
def trained(case: str) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return loss, gradients by name in PyTorch layout, and statistics by name, after one step."""
    model = loaded(parsed(case)[0])
    functions, stats = ModelFunctions(model), batch_stats(model)
    inputs = images(case)
    labels = jnp.arange(len(inputs)) * 7 % 1000

    @jax.jit
    def run(params: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, updated = functions.train(params, stats, inputs, key=jax.random.key(0))
            log_probabilities = jax.nn.log_softmax(logits)
            return -jnp.mean(log_probabilities[jnp.arange(len(inputs)), labels]), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradients, updated

    value, gradients, updated = jax.tree.map(np.asarray, run(parameters(model)))
    return float(value), named(model, gradients), named(model, updated)


def named(model: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays by checkpoint name, in PyTorch layout."""
    names = load_capability(family_of(model), "names")
    variant = names.variant_of(model.config)
    result = {}
    for path, array in arrays.items():
        name, layout = names.name_of(path, variant=variant)
        result[name] = layout.torch_array(array)
    return result


def gradient_errors(case: str) -> dict[str, float]:
    """Return {name: error of norm and probe over the norm}.

    Gradients that are zero in exact arithmetic are stored as [0, 0]; for them it is their own norm.
    """
    stored, errors = golden(case), {}
    for name, gradient in trained(case)[1].items():
        norm, probe = stored[f"grad/{name}"]
        wide = gradient.astype(np.float64)
        if norm == 0:
            errors[name] = float(np.linalg.norm(wide))
            continue
        direction = golden_weights.normal(f"probe/{name}", gradient.shape)
        errors[name] = max(
            abs(np.linalg.norm(wide) - norm) / norm, abs((wide * direction).sum() - probe) / norm
        )
    assert {f"grad/{name}" for name in errors} == {n for n in stored if n.startswith("grad/")}
    assert all(math.isfinite(error) for error in errors.values())
    return errors


def statistics_errors(case: str) -> dict[str, float]:
    """Return {name: error of a running statistic's norm, over the norm}, after one step.

    PyTorch moves its variance towards the unbiased one, n / (n - 1) times the biased one of ours.
    """
    stored, model = golden(case), loaded(parsed(case)[0])
    kept = named(model, jax.tree.map(np.asarray, batch_stats(model)))
    unbiased = named(
        model,
        {
            f"{path}/var": np.full(channels, count / (count - 1))
            for path, (count, channels) in _normalised(model, images(case)).items()
        },
    )
    errors = {}
    for name, statistic in trained(case)[2].items():
        old = BATCH_NORM_MOMENTUM * kept[name].astype(np.float64)
        theirs = old + (statistic - old) * unbiased.get(name, 1.0)
        norm = stored[f"bn/{name}"].item()
        errors[name] = abs(np.linalg.norm(theirs) - norm) / norm
    assert {f"bn/{name}" for name in errors} == {n for n in stored if n.startswith("bn/")}
    return errors


def _normalised(model: Any, images: jax.Array) -> dict[str, tuple[int, int]]:
    """Return {path of a BatchNorm: values that each channel is averaged over, channels}."""
    found, normalise = {}, BatchNorm.__call__

    def run(model: Any, images: jax.Array) -> Any:
        norms = (entry for entry in nnx.iter_modules(model) if isinstance(entry[1], BatchNorm))
        paths = {id(norm): "/".join(map(str, path)) for path, norm in norms}

        def record(norm: BatchNorm, x: jax.Array) -> jax.Array:
            found[paths[id(norm)]] = (x.size // x.shape[-1], x.shape[-1])
            return normalise(norm, x)

        with mock.patch.object(BatchNorm, "__call__", record):
            return model(images)

    # In training mode: in evaluation, some networks have merged their norms.
    training = nnx.view(model, deterministic=False, use_running_average=False)
    nnx.eval_shape(run, training, images)
    return found
