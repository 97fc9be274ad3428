"""Our paths against the names and layouts of the reference PyTorch classification models.

One table: a pattern over our path -> the reference name, and how its array is laid out there.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# The gate's depth-wise steps, in our order, as each reference implementation names them.
_GATE_STEPS = {
    "lska": ("conv0h", "conv0v", "conv_spatial_h", "conv_spatial_v"),
    "lka": ("conv0", "conv_spatial"),
    "lska_trivial": ("conv0h", "conv0v"),
    "lka_trivial": ("conv0",),
}


class Layout(NamedTuple):
    """An array's axes in PyTorch, turned into ours.

    Attributes:
      ndim: number of axes in PyTorch.
      shape: maps a PyTorch shape to ours.
      array: maps a PyTorch array to ours.
    """

    ndim: int
    shape: Callable[[Sequence[int]], tuple[int, ...]]
    array: Callable[[np.ndarray], np.ndarray]


def _transposed(ndim: int, axes: tuple[int, ...], *, squeeze: bool = False) -> Layout:
    def shape(torch_shape: Sequence[int]) -> tuple[int, ...]:
        turned = tuple(torch_shape[axis] for axis in axes)
        return turned[2:] if squeeze else turned

    def array(values: np.ndarray) -> np.ndarray:
        turned = np.transpose(values, axes)
        return turned[0, 0] if squeeze else turned

    return Layout(ndim, shape, array)


_VECTOR = _transposed(1, (0,))
_MATRIX = _transposed(2, (1, 0))
# (out, in / groups, kh, kw) -> (kh, kw, in / groups, out)
_CONV = _transposed(4, (2, 3, 1, 0))
# A 1x1 convolution is a matrix product over channels here.
_CONV_1X1 = _transposed(4, (2, 3, 1, 0), squeeze=True)

_BLOCK = r"stages/(?P<s>\d+)/blocks/(?P<b>\d+)"
_ONE_BY_ONE = {
    "attention/proj_in": "attn.proj_1",
    "attention/gate/pointwise": "attn.spatial_gating_unit.conv1",
    "attention/proj_out": "attn.proj_2",
    "ffn/expand": "mlp.fc1",
    "ffn/project": "mlp.fc2",
}
_NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def reference_name(path: str, *, attention: str) -> tuple[str, Layout]:
    """Return the reference's name of one of our arrays, and its layout there.

    Args:
      path: path of a parameter or statistic, as in ``lska_jax.nn.functional``.
      attention: the model's attention, key of ``lska_jax.nn.van.ATTENTIONS``.

    Raises:
      ValueError: the path belongs to no VAN.
    """
    for pattern, translate in _TABLE:
        match = re.fullmatch(pattern, path)
        if match:
            return translate(match.groupdict(), attention)
    raise ValueError(f"{path!r} is not a path of a VAN model.")


def _leaf(match: dict[str, str]) -> str:
    return "weight" if match["leaf"] == "kernel" else "bias"


def _block(match: dict[str, str]) -> str:
    return f"block{int(match['s']) + 1}.{match['b']}"


def _weight_layout(match: dict[str, str], kernel: Layout) -> Layout:
    return kernel if match["leaf"] == "kernel" else _VECTOR


_Translate = Callable[[dict[str, str], str], tuple[str, Layout]]
_TABLE: tuple[tuple[str, _Translate], ...] = (
    (
        r"stages/(?P<s>\d+)/patch_embedding/projection/(?P<leaf>kernel|bias)",
        lambda m, _: (
            f"patch_embed{int(m['s']) + 1}.proj.{_leaf(m)}",
            _weight_layout(m, _CONV),
        ),
    ),
    (
        r"stages/(?P<s>\d+)/patch_embedding/norm/(?P<leaf>\w+)",
        lambda m, _: (f"patch_embed{int(m['s']) + 1}.norm.{_NORM_LEAVES[m['leaf']]}", _VECTOR),
    ),
    (
        r"stages/(?P<s>\d+)/norm/(?P<leaf>scale|bias)",
        lambda m, _: (f"norm{int(m['s']) + 1}.{_NORM_LEAVES[m['leaf']]}", _VECTOR),
    ),
    (
        _BLOCK + r"/norm_(?P<n>[12])/(?P<leaf>\w+)",
        lambda m, _: (f"{_block(m)}.norm{m['n']}.{_NORM_LEAVES[m['leaf']]}", _VECTOR),
    ),
    (
        _BLOCK + r"/scale_(?P<n>[12])/scale",
        lambda m, _: (f"{_block(m)}.layer_scale_{m['n']}", _VECTOR),
    ),
    (
        _BLOCK + rf"/(?P<part>{'|'.join(_ONE_BY_ONE)})/(?P<leaf>kernel|bias)",
        lambda m, _: (
            f"{_block(m)}.{_ONE_BY_ONE[m['part']]}.{_leaf(m)}",
            _weight_layout(m, _CONV_1X1),
        ),
    ),
    (
        _BLOCK + r"/attention/gate/depthwise/(?P<step>\d+)/(?P<leaf>kernel|bias)",
        lambda m, attention: (
            f"{_block(m)}.attn.spatial_gating_unit."
            f"{_GATE_STEPS[attention][int(m['step'])]}.{_leaf(m)}",
            _weight_layout(m, _CONV),
        ),
    ),
    (
        _BLOCK + r"/ffn/depthwise/(?P<leaf>kernel|bias)",
        lambda m, _: (f"{_block(m)}.mlp.dwconv.dwconv.{_leaf(m)}", _weight_layout(m, _CONV)),
    ),
    (
        r"classifier/(?P<leaf>kernel|bias)",
        lambda m, _: (f"head.{_leaf(m)}", _weight_layout(m, _MATRIX)),
    ),
)
