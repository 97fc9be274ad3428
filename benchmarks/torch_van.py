"""The Visual Attention Network in plain PyTorch, to be measured against.

The same network as ``lska_jax.models.van`` without dropout and drop path (arXiv 2309.01439, section
3; arXiv 2202.09741), written as one writes PyTorch. Parameter names are the reference's, so that
weights pass through ``lska_jax.weights.names.van``.
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lska_jax.models.van import VAN
from lska_jax.models.van_config import VANConfig
from lska_jax.nn.functional import batch_stats, parameters
from lska_jax.ops.kernel_spec import kernel_spec
from lska_jax.weights.names.van import NAMES


def depthwise(
    channels: int, kernel_size: tuple[int, int], *, dilation: int = 1, bias: bool = True
) -> nn.Conv2d:
    """Return a depth-wise convolution that keeps the size."""
    padding = tuple(dilation * (size - 1) // 2 for size in kernel_size)
    return nn.Conv2d(
        channels,
        channels,
        kernel_size,
        padding=padding,
        dilation=dilation,
        groups=channels,
        bias=bias,
    )


class Gate(nn.Module):
    """Depth-wise convolutions and a 1x1 whose result multiplies the input, in any of four forms."""

    def __init__(self, channels: int, *, attention: str, k: int, dilation: int | None = None):
        super().__init__()
        if attention.endswith("_trivial"):
            steps = [("conv0", k, 1)]
        else:
            spec = kernel_spec(k, dilation=dilation)
            steps = [
                ("conv0", spec.local_size, 1),
                ("conv_spatial", spec.dilated_size, spec.dilation),
            ]
        self.steps = []
        for name, size, distance in steps:
            if attention.startswith("lska"):
                joint = "" if name == "conv0" else "_"
                kernels = {f"{name}{joint}h": (1, size), f"{name}{joint}v": (size, 1)}
            else:
                kernels = {name: (size, size)}
            for step, kernel_size in kernels.items():
                self.add_module(step, depthwise(channels, kernel_size, dilation=distance))
                self.steps.append(step)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x gated: (B, C, H, W)."""
        gate = x
        for step in self.steps:
            gate = getattr(self, step)(gate)
        return x * self.conv1(gate)


class _Attention(nn.Module):
    def __init__(self, channels: int, config: VANConfig):
        super().__init__()
        self.proj_1 = nn.Conv2d(channels, channels, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = Gate(
            channels, attention=config.attention, k=config.k, dilation=config.dilation
        )
        self.proj_2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))


class _DWConv(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = depthwise(channels, (3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dwconv(x)


class _Mlp(nn.Module):
    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.dwconv = _DWConv(hidden)
        self.activation = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.dwconv(self.fc1(x))))


class _Block(nn.Module):
    def __init__(self, channels: int, ffn_ratio: int, config: VANConfig):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = _Attention(channels, config)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = _Mlp(channels, channels * ffn_ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), 1e-2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.layer_scale_1[:, None, None] * self.attn(self.norm1(x))
        return x + self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    def __init__(self, in_channels: int, channels: int, *, size: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, size, stride=stride, padding=size // 2)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x))


class TorchVAN(nn.Module):
    """VAN on (B, 3, H, W), in either memory format."""

    def __init__(self, config: VANConfig):
        super().__init__()
        self.num_stages = len(config.dims)
        in_channels = config.in_channels
        stages = zip(config.dims, config.depths, config.ffn_ratios, strict=True)
        for number, (channels, depth, ratio) in enumerate(stages, start=1):
            size, stride = (7, config.stem_stride) if number == 1 else (3, 2)
            embedding = _PatchEmbed(in_channels, channels, size=size, stride=stride)
            blocks = nn.ModuleList(_Block(channels, ratio, config) for _ in range(depth))
            self.add_module(f"patch_embed{number}", embedding)
            self.add_module(f"block{number}", blocks)
            self.add_module(f"norm{number}", nn.LayerNorm(channels, eps=1e-6))
            in_channels = channels
        self.head = nn.Linear(in_channels, config.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, num_classes)."""
        return self.head(self.maps(x)[-1].mean(dim=(2, 3)))

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the map of every stage, (B, C, H, W) each."""
        is_last = x.is_contiguous(memory_format=torch.channels_last)
        memory_format = torch.channels_last if is_last else torch.contiguous_format
        found = []
        for number in range(1, self.num_stages + 1):
            x = getattr(self, f"patch_embed{number}")(x)
            for block in getattr(self, f"block{number}"):
                x = block(x)
            x = getattr(self, f"norm{number}")(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            x = x.contiguous(memory_format=memory_format)
            found.append(x)
        return found


def torch_van(model: VAN) -> TorchVAN:
    """Return the PyTorch network with the architecture and the weights of a model."""
    network = TorchVAN(model.config)
    state = {name: torch.from_numpy(array) for name, array in reference_arrays(model).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    wrong = [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected
    if wrong:
        raise ValueError(f"The PyTorch network has other parameters than the model: {wrong}.")
    return network


def reference_arrays(model: VAN) -> Mapping[str, np.ndarray]:
    """Return a model's parameters and statistics by reference name, in PyTorch's layout."""
    arrays = {}
    for path, value in {**parameters(model), **batch_stats(model)}.items():
        name, layout = NAMES.name_of(path, variant=model.config.attention)
        array = np.array(value)
        if layout.ndim == 4:
            full = array if array.ndim == 4 else array[None, None]
            array = np.ascontiguousarray(full.transpose(3, 2, 0, 1))
        elif layout.ndim == 2:
            array = np.ascontiguousarray(array.T)
        arrays[name] = array
    return arrays


def folded(network: TorchVAN) -> TorchVAN:
    """Return a copy for inference whose BatchNorms and layer scales are folded.

    A patch embedding's norm goes into the convolution before it; of a block's norms and scales
    one product a channel stays, for the shortcut. The same as ``lska_jax.models.fold``.
    """
    network = copy.deepcopy(network).eval()
    for number in range(1, network.num_stages + 1):
        embedding = getattr(network, f"patch_embed{number}")
        embedding.proj = fuse_conv_bn_eval(embedding.proj, embedding.norm)
        embedding.norm = nn.Identity()
        blocks = getattr(network, f"block{number}")
        for index, block in enumerate(blocks):
            blocks[index] = _FoldedBlock(block)
    return network


class _FoldedBlock(nn.Module):
    """A block x -> s x + P(G(gelu(E x))), then x -> x + F(x); it takes the block's layers over."""

    @torch.no_grad()
    def __init__(self, block: _Block):
        super().__init__()
        scale, shift = _affine(block.norm1)
        self.attn, self.mlp = block.attn, block.mlp
        self.shortcut = nn.Parameter((1 + block.layer_scale_1 * scale)[:, None, None])
        _fold_into_input(self.attn.proj_1, scale, shift)
        _fold_into_output(self.attn.proj_2, block.layer_scale_1)
        self.attn.proj_2.bias += block.layer_scale_1 * shift
        _fold_into_input(self.mlp.fc1, *_affine(block.norm2))
        _fold_into_output(self.mlp.fc2, block.layer_scale_2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attn = self.attn
        gated = attn.spatial_gating_unit(attn.activation(attn.proj_1(x)))
        x = x * self.shortcut + attn.proj_2(gated)
        return x + self.mlp(x)


def _affine(norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _fold_into_input(conv: nn.Conv2d, scale: torch.Tensor, shift: torch.Tensor) -> None:
    conv.bias += conv.weight[:, :, 0, 0] @ shift
    conv.weight *= scale[:, None, None]


def _fold_into_output(conv: nn.Conv2d, scale: torch.Tensor) -> None:
    conv.weight *= scale[:, None, None, None]
    conv.bias *= scale


def inference(network: TorchVAN, images: torch.Tensor) -> torch.Tensor:
    """Return logits (B, num_classes) in inference mode."""
    with torch.inference_mode():
        return network(images)


def train_step(
    network: TorchVAN, images: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, Any]:
    """Return the mean cross entropy and the gradients of all parameters."""
    loss = functional.cross_entropy(network(images), labels)
    return loss, torch.autograd.grad(loss, list(network.parameters()))
