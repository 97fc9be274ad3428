"""Semantic FPN on a VAN in plain PyTorch, to be measured against.

The same network as ``lska_jax.models.dense.semantic_fpn`` without dropout and drop path (arXiv
1901.02446, section 3.2), written as one writes PyTorch.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_van import TorchVAN, reference_arrays
from lska_jax.nn.functional import batch_stats, parameters

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_CONV = {"kernel": "weight", "bias": "bias"}


class TorchSemanticFPN(nn.Module):
    """A segmentor on (B, 3, H, W), with the parts of ours by their names."""

    def __init__(self, config: Any, channels: tuple[int, ...]):
        super().__init__()
        width, head = config.head.pyramid_channels, config.head.channels
        self.backbone = TorchVAN(config)
        self.backbone.head = nn.Identity()
        for number in range(1, len(channels) + 1):
            getattr(self.backbone, f"norm{number}").eps = config.layer_norm_epsilon
        self.laterals = nn.ModuleList(nn.Conv2d(given, width, 1) for given in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.branches = nn.ModuleList(
            nn.ModuleList(_block(head if i else width, head) for i in range(max(level, 1)))
            for level in range(len(channels))
        )
        self.classes = nn.Conv2d(head, config.num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, H / 4, W / 4)."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, self.backbone.maps(x), strict=True)]
        for level in range(len(maps) - 1, 0, -1):
            size = maps[level - 1].shape[2:]
            coarse = functional.interpolate(maps[level], size=size, mode="nearest")
            maps[level - 1] = maps[level - 1] + coarse
        summed: Any = 0
        for level, (output, branch) in enumerate(zip(self.outputs, self.branches, strict=True)):
            x = output(maps[level])
            for block in branch:
                x = block(x)
                if level:
                    x = functional.interpolate(x, scale_factor=2, mode="bilinear")
            summed = summed + x
        return self.classes(summed)


def _block(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())


def torch_segmentor(network: Any) -> TorchSemanticFPN:
    """Return the PyTorch network with the architecture and the weights of a Semantic FPN.

    Raises:
      ValueError: the names do not fit.
    """
    peer = TorchSemanticFPN(network.config, tuple(one.channels for one in network.pyramid))
    state = {f"backbone.{name}": a for name, a in reference_arrays(network.backbone).items()}
    for path, value in {**parameters(network), **batch_stats(network)}.items():
        if not path.startswith("backbone/"):
            array = np.array(value)
            state[_name_of(path)] = _in_torch_layout(array, is_kernel=path.endswith("kernel"))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}
    missing, unexpected = peer.load_state_dict(tensors, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected
    if wrong:
        raise ValueError(f"The PyTorch network has other parameters than ours: {wrong}.")
    return peer


def _name_of(path: str) -> str:
    *parts, last = path.split("/")
    if parts[0] == "neck":
        return ".".join([*parts[1:], _CONV[last]])
    if parts[0] == "classifier":
        return f"classes.{_CONV[last]}"
    # branches / level / blocks / number / conv or norm
    is_norm = parts[4] == "norm"
    return f"branches.{parts[1]}.{parts[3]}.{int(is_norm)}.{(_NORM if is_norm else _CONV)[last]}"


def _in_torch_layout(array: np.ndarray, *, is_kernel: bool) -> np.ndarray:
    if not is_kernel:
        return array
    return (array if array.ndim == 4 else array[None, None]).transpose(3, 2, 0, 1)


def train_step(
    network: TorchSemanticFPN, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    """Return the mean cross-entropy over all pixels and the gradients of all parameters."""
    logits = functional.interpolate(network(images), size=labels.shape[1:], mode="bilinear")
    loss = functional.cross_entropy(logits, labels)
    return loss, torch.autograd.grad(loss, list(network.parameters()))
