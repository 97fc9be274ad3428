"""Whole networks as calls to be timed: inference and train steps, in JAX and in PyTorch.

A train step is the forward pass with BatchNorm over the batch, the mean cross entropy and the
gradients of all parameters; no optimizer, no drop path, the same on both sides.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.operations import TORCH_FORMATS
from lska_jax.data.workers import usable_cores
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.nn.van import VAN

Call = Callable[[], Any]


def random_batch(batch_size: int, image_size: int, num_classes: int) -> tuple[Any, Any]:
    """Return normal images (B, S, S, 3) float32 and labels (B,) int32."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, image_size, image_size, 3)).astype(np.float32)
    return images, rng.integers(0, num_classes, batch_size).astype(np.int32)


def loss_and_gradients(functions: Any) -> Callable[..., Any]:
    """Return (params, stats, images, labels) -> loss, gradients, updated statistics.

    Args:
      functions: ``ModelFunctions``, or another that has their ``train``, over any trees of arrays.
    """

    def step(params: Any, stats: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            logits, updated = functions.train(params, stats, images, key=jax.random.key(0))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradients, updated

    return step


def jax_inference(model: VAN, images: np.ndarray) -> Call:
    """Return a compiled call of the model's logits."""
    functions, params, stats = ModelFunctions(model), parameters(model), batch_stats(model)
    on_device = jnp.asarray(images)
    compiled = jax.jit(functions.evaluate).lower(params, stats, on_device).compile()
    return lambda: compiled(params, stats, on_device)


def jax_train_step(model: VAN, images: np.ndarray, labels: np.ndarray) -> Call:
    """Return a compiled call of the model's train step."""
    arguments = (
        parameters(model),
        batch_stats(model),
        jnp.asarray(images),
        jnp.asarray(labels),
    )
    compiled = jax.jit(loss_and_gradients(ModelFunctions(model))).lower(*arguments).compile()
    return lambda: compiled(*arguments)


def torch_inference(model: VAN, images: np.ndarray) -> dict[str, Call]:
    """Return calls of the PyTorch network's logits, plain and folded, in both memory formats."""
    from benchmarks import torch_van

    network = torch_van.torch_van(model).eval()
    calls = {}
    for prefix, form in (("torch", network), ("torch folded", torch_van.folded(network))):
        for name, placed, batch in _in_formats(form, images):
            calls[name.replace("torch", prefix)] = _bind(torch_van.inference, placed, batch)
    return calls


def torch_train_step(model: VAN, images: np.ndarray, labels: np.ndarray) -> dict[str, Call]:
    """Return calls of the PyTorch network's train step in both memory formats."""
    import torch

    from benchmarks import torch_van

    targets = torch.from_numpy(labels).long()
    return {
        name: _bind(torch_van.train_step, placed.train(), batch, targets)
        for name, placed, batch in _in_formats(torch_van.torch_van(model), images)
    }


def _in_formats(network: Any, images: np.ndarray) -> Any:
    import copy

    import torch

    torch.set_num_threads(usable_cores())
    layouts = (torch.contiguous_format, torch.channels_last)
    for name, layout in zip(TORCH_FORMATS, layouts, strict=True):
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        yield name, copy.deepcopy(network).to(memory_format=layout), batch


def _bind(function: Callable[..., Any], *arguments: Any) -> Call:
    return lambda: function(*arguments)
