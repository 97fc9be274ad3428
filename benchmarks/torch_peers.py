"""The same networks in PyTorch: timm's, and for VAN, which timm does not have, ``torch_van``."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import require
from lska_jax.models.table import model_entry
from lska_jax.weights.state_dict import make_state_dict

_NOT_IN_TIMM = ("unireplknet",)


def is_known(model: str) -> bool:
    """Tell whether there is such a network in PyTorch to compare with."""
    return model_entry(model).family not in _NOT_IN_TIMM


def call(
    model: str,
    network: Any,
    layout: str,
    mode: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    is_compiled: bool = False,
) -> Callable[[], Any]:
    """Return a call of the PyTorch network with the same weights.

    Args:
      model: name of the network.
      network: ours, whose weights it takes.
      layout: "torch contiguous" or "torch channels_last".
      mode: "inference" or "train".
      images: (B, H, W, 3) float32.
      labels: (B,) int32.
      is_compiled: whether ``torch.compile`` is put around it.
    """
    torch = require("torch", "Comparing with PyTorch")
    from benchmarks import torch_van
    from lska_jax.ops.processor import usable_cores

    torch.set_num_threads(usable_cores())
    is_last = layout.endswith("channels_last")
    memory_format = torch.channels_last if is_last else torch.contiguous_format
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
    placed = make_peer(model, network).to(memory_format=memory_format)
    placed.train(mode == "train")
    run = torch.compile(placed) if is_compiled else placed
    if mode == "inference":
        return lambda: torch_van.inference(run, batch)
    targets = torch.from_numpy(labels).long()
    parameters = list(placed.parameters())

    def step() -> Any:
        loss = torch.nn.functional.cross_entropy(run(batch), targets)
        return loss, torch.autograd.grad(loss, parameters)

    return step


def make_peer(model: str, network: Any, **architecture: Any) -> Any:
    """Return the PyTorch network with the same weights.

    Args:
      model: name of the network.
      network: ours.
      **architecture: what timm's is given beside its name, for networks of another size.
    """
    from benchmarks import torch_van

    if model_entry(model).family == "van":
        return torch_van.torch_van(network)
    import torch

    timm = require("timm", "Comparing with timm")
    # Swin drops paths by default.
    classes = network.config.num_classes
    peer = timm.create_model(model, num_classes=classes, drop_path_rate=0.0, **architecture)
    state = {name: torch.from_numpy(array) for name, array in make_state_dict(network).items()}
    peer.load_state_dict(state)
    return copy.deepcopy(peer)
