"""Our paths against the names and layouts of the family's PyTorch checkpoints.

One table: a module of ours -> its name in each naming, and how its arrays are laid out there. The
namings are

- ``reference``: the reference classification code of LSKA and VAN;
- ``detection``: its detection and segmentation copies;
- ``hugging_face``: VAN in transformers (LKA only).
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

NAMINGS = ("reference", "detection", "hugging_face")

# Counters of PyTorch's BatchNorm, which nothing here reads.
COUNTER = "num_batches_tracked"
# transformers' VAN has a last LayerNorm that its forward pass never calls.
UNUSED_BY_HUGGING_FACE = ("van.layernorm.weight", "van.layernorm.bias")


@dataclasses.dataclass(frozen=True)
class Layout:
    """An array's axes in PyTorch against ours.

    Attributes:
      axes: the PyTorch axis of each of our axes.
      is_1x1: PyTorch's first two of ``axes`` have length 1 and are dropped here.
    """

    axes: tuple[int, ...]
    is_1x1: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes in PyTorch."""
        return len(self.axes)

    def array(self, torch_array: np.ndarray) -> np.ndarray:
        """Turn a PyTorch array into ours, a view of it."""
        turned = np.transpose(torch_array, self.axes)
        return turned[0, 0] if self.is_1x1 else turned

    def torch_array(self, array: np.ndarray) -> np.ndarray:
        """Turn an array of ours into PyTorch's, contiguous."""
        whole = array[None, None] if self.is_1x1 else array
        # Not np.ascontiguousarray, which makes vectors of scalars.
        return np.array(np.transpose(whole, np.argsort(self.axes)), order="C")

    def torch_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Turn a shape of ours into PyTorch's."""
        whole = (1, 1, *shape) if self.is_1x1 else tuple(shape)
        return tuple(whole[axis] for axis in np.argsort(self.axes))


class _Module(NamedTuple):
    """One module: {s} and {b} are stage and block from 0, {S} is the stage from 1."""

    path: str
    leaves: Mapping[str, tuple[str, Layout]]
    names: tuple[str | None, str | None, str | None]


_VECTOR = Layout((0,))
_BIAS = {"bias": ("bias", _VECTOR)}
_NORM = {"scale": ("weight", _VECTOR), **_BIAS}
_BATCH_NORM = {**_NORM, "mean": ("running_mean", _VECTOR), "var": ("running_var", _VECTOR)}
# (out, in / groups, kh, kw) -> (kh, kw, in / groups, out)
_CONV = {"kernel": ("weight", Layout((2, 3, 1, 0))), **_BIAS}
# A 1x1 convolution is a matrix product over channels here.
_CONV_1X1 = {"kernel": ("weight", Layout((2, 3, 1, 0), is_1x1=True)), **_BIAS}
_MATRIX = {"kernel": ("weight", Layout((1, 0))), **_BIAS}
_SCALE = {"scale": ("", _VECTOR)}

_BLOCK = "stages/{s}/blocks/{b}/"
_HF_STAGE = "van.encoder.stages.{s}."
_HF_BLOCK = "van.encoder.stages.{s}.layers.{b}."


def _in_block(
    path: str, leaves: Mapping[str, tuple[str, Layout]], name: str, hugging_face: str | None
) -> _Module:
    """Return a row whose detection name differs from the reference's in the block's name only."""
    return _Module(
        _BLOCK + path,
        leaves,
        (
            "block{S}.{b}." + name,
            "blocks{S}.{b}." + name.replace("dwconv.dwconv", "dwconv"),
            None if hugging_face is None else _HF_BLOCK + hugging_face,
        ),
    )


_GATE = "attn.spatial_gating_unit."
_HF_GATE = "attention.attention_layer.attention."
# In the order of the reference's state_dict.
_MODULES = (
    _Module(
        "stages/{s}/patch_embedding/projection",
        _CONV,
        (
            "patch_embed{S}.proj",
            "patch_embed{S}.projection",
            _HF_STAGE + "embeddings.convolution",
        ),
    ),
    _Module(
        "stages/{s}/patch_embedding/norm",
        _BATCH_NORM,
        ("patch_embed{S}.norm", "patch_embed{S}.norm", _HF_STAGE + "embeddings.normalization"),
    ),
    _in_block("scale_1", _SCALE, "layer_scale_1", "attention_scaling.weight"),
    _in_block("scale_2", _SCALE, "layer_scale_2", "mlp_scaling.weight"),
    _in_block("norm_1", _BATCH_NORM, "norm1", "pre_normomalization"),
    _in_block("attention/proj_in", _CONV_1X1, "attn.proj_1", "attention.pre_projection.conv"),
    _in_block("attention/gate/pointwise", _CONV_1X1, _GATE + "conv1", _HF_GATE + "point_wise"),
    _in_block("attention/proj_out", _CONV_1X1, "attn.proj_2", "attention.post_projection"),
    _in_block("norm_2", _BATCH_NORM, "norm2", "post_normalization"),
    _in_block("ffn/expand", _CONV_1X1, "mlp.fc1", "mlp.in_dense"),
    _in_block("ffn/depthwise", _CONV, "mlp.dwconv.dwconv", "mlp.depth_wise"),
    _in_block("ffn/project", _CONV_1X1, "mlp.fc2", "mlp.out_dense"),
    _Module("stages/{s}/norm", _NORM, ("norm{S}", "norm{S}", _HF_STAGE + "normalization")),
    _Module("classifier", _MATRIX, ("head", "head", "classifier")),
)

# The gate's depth-wise steps in our order, as each naming calls them. The family has no detection
# copy of LKA under names of its own: it keeps the reference's.
_GATE_STEPS: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    "lska": (
        ("conv0h", "DW_conv_h", None),
        ("conv0v", "DW_conv_v", None),
        ("conv_spatial_h", "DW_D_conv_h", None),
        ("conv_spatial_v", "DW_D_conv_v", None),
    ),
    "lka": (
        ("conv0", "conv0", "depth_wise"),
        ("conv_spatial", "conv_spatial", "depth_wise_dilated"),
    ),
    "lska_trivial": (("conv0h", "DW_conv_h", None), ("conv0v", "DW_conv_v", None)),
    "lka_trivial": (("conv0", "conv0", None),),
}


@functools.cache
def _gate_modules(attention: str) -> tuple[_Module, ...]:
    return tuple(
        _Module(
            _BLOCK + f"attention/gate/depthwise/{step}",
            _CONV,
            (
                "block{S}.{b}." + _GATE + reference,
                "blocks{S}.{b}." + _GATE + detection,
                hugging_face and _HF_BLOCK + _HF_GATE + hugging_face,
            ),
        )
        for step, (reference, detection, hugging_face) in enumerate(_GATE_STEPS[attention])
    )


def reference_name(path: str, *, attention: str, naming: str = "reference") -> tuple[str, Layout]:
    """Return the name of one of our arrays in a PyTorch checkpoint, and its layout there.

    Args:
      path: path of a parameter or statistic, as in ``lska_jax.nn.functional``.
      attention: the model's attention, key of ``lska_jax.models.van.ATTENTIONS``.
      naming: one of ``NAMINGS``.

    Raises:
      ValueError: the path belongs to no VAN, or the naming does not know it.
    """
    names, layout = all_names(path, attention=attention)
    if naming not in NAMINGS:
        raise ValueError(f"naming={naming!r} is unknown; allowed: {', '.join(NAMINGS)}.")
    if naming not in names:
        raise ValueError(
            f"The naming {naming!r} has no name for {path} of {attention}; it has LKA only. Use "
            "naming='reference'."
        )
    return names[naming], layout


def all_names(path: str, *, attention: str) -> tuple[dict[str, str], Layout]:
    """Return {naming: name} of one of our arrays, and its layout.

    Raises:
      ValueError: the path belongs to no VAN.
    """
    module, _, leaf = path.rpartition("/")
    for row in (*_MODULES, *_gate_modules(attention)):
        match = _pattern(row.path).fullmatch(module)
        if match and leaf in row.leaves:
            torch_leaf, layout = row.leaves[leaf]
            places = {name: int(number) for name, number in match.groupdict().items()}
            names = {
                naming: _with_leaf(_filled(template, places), torch_leaf)
                for naming, template in zip(NAMINGS, row.names, strict=True)
                if template is not None
            }
            return names, layout
    raise ValueError(f"{path!r} is not a path of a VAN model.")


def read_name(name: str) -> list[tuple[str, str, str]]:
    """Return every (naming, attention, path) that a name of a checkpoint can mean; [] for none.

    Only depth-wise steps of the gate depend on the attention; for all others it is "".
    """
    found = []
    dots = [0, *(i for i, letter in enumerate(name) if letter == ".")]
    for entry in (entry for dot in dots for entry in _by_ending().get(name[dot:], ())):
        match = _pattern(entry.template).fullmatch(name)
        if match:
            places = {key: int(number) for key, number in match.groupdict().items()}
            if "S" in places:
                places["s"] = places["S"] - 1
            found.append((entry.naming, entry.attention, _filled(entry.path, places)))
    return found


class _Entry(NamedTuple):
    """One leaf of a module in one naming."""

    naming: str
    attention: str
    template: str
    path: str


@functools.cache
def _by_ending() -> dict[str, list[_Entry]]:
    """Return the whole table by what stands behind the last number of each template."""
    rows = [("", row) for row in _MODULES]
    rows += [(attention, row) for attention in _GATE_STEPS for row in _gate_modules(attention)]
    entries: dict[str, list[_Entry]] = {}
    for attention, row in rows:
        for naming, template in zip(NAMINGS, row.names, strict=True):
            for leaf, (torch_leaf, _) in row.leaves.items():
                if template is not None:
                    whole = _with_leaf(template, torch_leaf)
                    entry = _Entry(naming, attention, whole, f"{row.path}/{leaf}")
                    entries.setdefault(whole.rpartition("}")[2], []).append(entry)
    return entries


def _filled(template: str, places: Mapping[str, int]) -> str:
    stage = places.get("s", 0)
    return template.format(s=stage, S=stage + 1, b=places.get("b", 0))


def _with_leaf(name: str, leaf: str) -> str:
    return f"{name}.{leaf}" if leaf else name


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """Return the regular expression of a template; every number has one spelling."""
    pattern = re.escape(template)
    for place, number in (("s", "0|[1-9][0-9]?"), ("S", "[1-9][0-9]?"), ("b", "0|[1-9][0-9]{0,2}")):
        pattern = pattern.replace(re.escape(f"{{{place}}}"), f"(?P<{place}>{number})")
    return re.compile(pattern)
