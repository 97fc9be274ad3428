"""Networks with golden weights against golden outputs, by the names of timm's checkpoints.

A case is a file of ``tests/golden``: MODEL__HEIGHTxWIDTH.npz, ..._small.npz (activations so small
that a norm's epsilon shows), ..._train.npz (loss, gradients and statistics of one step).
"""

import functools
import math
from typing import Any

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lska_jax.models.build import array_shapes, config_of
from lska_jax.models.table import families, family_of, load_capability, model_entry, section_of
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.weights.pretrained import build_from_arrays


def golden(case: str) -> dict[str, np.ndarray]:
    """Return the stored outputs of a case."""
    with np.load(golden_weights.GOLDEN / f"{case}.npz") as stored:
        return dict(stored)


def weight(name: str, shape: tuple[int, ...], *, is_small: bool = False) -> np.ndarray:
    """Return the golden value of one array of a checkpoint, in PyTorch layout."""
    n, last = golden_weights.normal(name, shape), name.rpartition(".")[2]
    if last in ("pos_embed", "cls_token", "dist_token", "beta"):
        value = 0.2 * n
    elif last == "gamma":
        value = 0.2 + 0.05 * n
    else:
        value = golden_weights.weight(name, shape)
    if not is_small:
        return value
    if last == "running_var":
        return value * np.float32(1e-4)
    is_kept = name.startswith("head") or last == "gamma" or (last == "weight" and len(shape) == 1)
    return value if is_kept else value * np.float32(0.01)


@functools.cache
def loaded(model: str, *, is_small: bool = False) -> Any:
    """Return a model with golden weights, in evaluation mode."""
    config = config_of(section_of(model))
    names = load_capability(families()[model_entry(model).family], "names")
    arrays = {}
    for path, shape in array_shapes(config).items():
        name, layout = names.name_of(path, variant=names.variant_of(config))
        value = weight(name, layout.torch_shape(shape), is_small=is_small)
        arrays[path] = layout.array(value.astype(np.float32))
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

    @nnx.jit
    def run(network: Any, images: jax.Array) -> Any:
        maps = network.features(images)
        return network.head(maps[-1]), maps

    return jax.tree.map(np.asarray, run(network, images(case)))


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
