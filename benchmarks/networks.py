"""Whole networks as calls to be timed: inference and train steps, in JAX and in PyTorch.

A train step is the forward pass with BatchNorm over the batch, the mean cross entropy and the
gradients of all parameters; no optimizer, no drop path, the same on both sides.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import results
from benchmarks.operations import TORCH_FORMATS
from lska_jax.models.van import VAN
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.ops.processor import usable_cores

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
    lowered, arguments = lower_inference(model, images)
    return bind(lowered.compile(), *arguments)


def jax_train_step(model: VAN, images: np.ndarray, labels: np.ndarray) -> Call:
    """Return a compiled call of the model's train step."""
    lowered, arguments = lower_train_step(model, images, labels)
    return bind(lowered.compile(), *arguments)


def lower_inference(model: VAN, images: np.ndarray) -> tuple[jax.stages.Lowered, Any]:
    """Return the program of the model's logits, to be compiled, and its arguments."""
    arguments = (parameters(model), batch_stats(model), jnp.asarray(images))
    return jax.jit(ModelFunctions(model).evaluate).lower(*arguments), arguments


def lower_train_step(
    model: VAN, images: np.ndarray, labels: np.ndarray
) -> tuple[jax.stages.Lowered, Any]:
    """Return the program of the model's train step, to be compiled, and its arguments."""
    arguments = (
        parameters(model),
        batch_stats(model),
        jnp.asarray(images),
        jnp.asarray(labels),
    )
    step = loss_and_gradients(ModelFunctions(model))
    return jax.jit(step).lower(*arguments), arguments


def torch_inference(
    model: VAN, images: np.ndarray, *, forms: Sequence[str] = ("torch", "torch folded")
) -> dict[str, Call]:
    """Return calls of the PyTorch network's logits in both memory formats, on JAX's device.

    Args:
      model: whose architecture and weights it has; its dtype is that of ``torch.autocast``.
      images: (B, H, W, 3).
      forms: "torch" as it is trained, "torch folded" for inference.
    """
    from benchmarks import torch_van

    network = torch_van.torch_van(model).eval()
    calls = {}
    for form in forms:
        form_of_it = torch_van.folded(network) if "folded" in form else network
        for name, placed, batch in _in_formats(form_of_it, images):
            run = bind(torch_van.inference, placed, batch)
            calls[name.replace("torch", form)] = _on_device(run, model)
    return calls


def torch_train_step(model: VAN, images: np.ndarray, labels: np.ndarray) -> dict[str, Call]:
    """Return calls of the PyTorch network's train step in both formats; see ``torch_inference``."""
    import torch

    from benchmarks import torch_van

    targets = torch.from_numpy(labels).long().to(_torch_device())
    return {
        name: _on_device(bind(torch_van.train_step, placed.train(), batch, targets), model)
        for name, placed, batch in _in_formats(torch_van.torch_van(model), images)
    }


def _in_formats(network: Any, images: np.ndarray) -> Any:
    import copy

    import torch

    torch.set_num_threads(usable_cores())
    layouts = (torch.contiguous_format, torch.channels_last)
    for name, layout in zip(TORCH_FORMATS, layouts, strict=True):
        batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        placed = copy.deepcopy(network).to(_torch_device(), memory_format=layout)
        yield name, placed, batch.to(_torch_device())


def has_torch() -> bool:
    """Tell whether PyTorch is installed and computes on JAX's device."""
    if not results.has_torch():
        return False
    import torch

    platform = jax.default_backend()
    is_here = torch.cuda.is_available() if platform == "gpu" else platform == "cpu"
    if not is_here:
        print(f"PyTorch does not compute on JAX's {platform}, so nothing is compared with it.")
    return is_here


def _torch_device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def _on_device(call: Call, model: VAN) -> Call:
    """Return a call that computes in the model's dtype and waits for the device.

    On GPU the settings are PyTorch's fastest: the fastest convolutions are looked for, and float32
    is multiplied as tf32, as JAX does by default (its depth-wise convolutions here are float32).
    """
    import torch

    device = _torch_device()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    is_bfloat16 = jnp.dtype(model.config.dtype) == jnp.bfloat16

    def run() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=is_bfloat16):
            out = call()
        if device == "cuda":
            torch.cuda.synchronize()
        return out

    return run


def bind(function: Callable[..., Any], *arguments: Any) -> Call:
    """Return a call of a function with its arguments."""
    return lambda: function(*arguments)
