"""Which network an array's name and shape belong to: from a config to shapes, and back."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lska_jax.models.table import SIZES
from lska_jax.models.van import VANConfig
from lska_jax.ops.kernel_spec import check_odd_kernel, default_dilation, kernel_spec
from lska_jax.weights.names.van import COUNTER, read_name

Shape = tuple[int, ...]

STEM_KERNEL, LATER_KERNEL, FFN_KERNEL = 7, 3, 3

# Fields of ``VANConfig`` that decide which arrays there are and what is computed from them. The
# others (drop rates, dtype, remat, implementation) are the user's choice.
ARCHITECTURE_FIELDS = (
    "attention",
    "k",
    "dilation",
    "dims",
    "depths",
    "ffn_ratios",
    "num_classes",
    "in_channels",
    "stem_stride",
    "layer_norm_epsilon",
)


def gate_kernels(config: VANConfig) -> list[tuple[int, int]]:
    """Return (height, width) of the gate's depth-wise kernels, in order."""
    if config.attention.endswith("_trivial"):
        sizes = [check_odd_kernel(config.k)]
    else:
        spec = kernel_spec(config.k, dilation=config.dilation)
        sizes = [spec.local_size, spec.dilated_size]
    if config.attention.startswith("lska"):
        return [kernel for size in sizes for kernel in ((1, size), (size, 1))]
    return [(size, size) for size in sizes]


def array_shapes(config: VANConfig) -> dict[str, Shape]:
    """Return {path: shape} of a model's parameters and statistics, without building it.

    The order is that of the reference's state_dict.
    """
    shapes: dict[str, Shape] = {}
    in_channels = config.in_channels
    for stage, (channels, depth, ratio) in enumerate(
        zip(config.dims, config.depths, config.ffn_ratios, strict=True)
    ):
        size = LATER_KERNEL if stage else STEM_KERNEL
        embedding = f"stages/{stage}/patch_embedding"
        shapes |= _conv(f"{embedding}/projection", (size, size, in_channels, channels))
        shapes |= _batch_norm(f"{embedding}/norm", channels)
        for block in range(depth):
            shapes |= _block(f"stages/{stage}/blocks/{block}", channels, ratio, config)
        shapes |= _norm(f"stages/{stage}/norm", channels)
        in_channels = channels
    if config.num_classes:
        shapes |= _conv("classifier", (config.dims[-1], config.num_classes))
    return shapes


def describe(config: VANConfig) -> str:
    """Return a config in a few words, as in "van_lska_tiny, k=23, 1000 classes"."""
    size = size_name(config)
    name = f"van_{config.attention}_{size}" if size else f"a VAN with {config.attention}"
    words = [name, f"k={config.k}"]
    if config.dilation is not None:
        words.append(f"dilation={config.dilation}")
    if not size:
        words += [f"dims={config.dims}", f"depths={config.depths}"]
        words += [f"ffn_ratios={config.ffn_ratios}"]
    words.append(f"{config.num_classes} classes" if config.num_classes else "no head")
    if config.in_channels != 3:
        words.append(f"{config.in_channels} input channels")
    return ", ".join(words)


def size_name(config: VANConfig) -> str | None:
    """Return the named size that a config has, or None."""
    sizes = (config.dims, config.depths, config.ffn_ratios)
    return next((name for name, size in SIZES.items() if tuple(size) == sizes), None)


@dataclasses.dataclass(frozen=True)
class Inferred:
    """What names and shapes say about a network; None where they say nothing.

    Attributes:
      fields: fields of ``VANConfig``.
      naming: the naming that most names have.
    """

    fields: dict[str, Any]
    naming: str


def infer_architecture(shapes: Mapping[str, Shape]) -> Inferred:
    """Read the architecture off the names and shapes of a PyTorch checkpoint.

    A dilation other than the reference's for its k is no part of the answer: exchanged kernels
    look like one.

    Args:
      shapes: {name: shape in PyTorch layout}, of any naming, wrappers removed.

    Raises:
      ValueError: no name is one of the family's.
    """
    by_path, namings, attentions = _read_names(shapes)
    if not by_path:
        shown = ", ".join(list(shapes)[:5]) or "none at all"
        raise ValueError(
            "no array has a name of the VAN family (patch_embed1.proj.weight and the like); names "
            f"here: {shown}"
        )
    places = [path.split("/") for path in by_path if path.startswith("stages/")]
    stages = range(_count({int(place[1]) for place in places}))
    fields: dict[str, Any] = {
        "depths": tuple(
            _count({int(p[3]) for p in places if p[1] == str(stage) and p[2] == "blocks"})
            for stage in stages
        ),
        "dims": tuple(_channels(by_path, stage) for stage in stages),
        "attention": max(attentions, key=lambda name: attentions[name]) if attentions else None,
        "in_channels": _axis(by_path, "stages/0/patch_embedding/projection/kernel", 1),
        "num_classes": _axis(by_path, "classifier/kernel", 0)
        or _axis(by_path, "classifier/bias", 0)
        or 0,
    }
    fields["ffn_ratios"] = tuple(
        _ffn_ratio(by_path, stage, channels) for stage, channels in enumerate(fields["dims"])
    )
    if fields["attention"]:
        fields["k"], fields["kernel_sizes"] = _kernel_size(by_path, fields["attention"])
    return Inferred(fields, max(namings, key=lambda name: namings[name]))


def _read_names(
    shapes: Mapping[str, Shape],
) -> tuple[dict[str, Shape], Counter[str], Counter[str]]:
    """Return shapes by path, and how many names speak for each naming and each attention."""
    by_path: dict[str, Shape] = {}
    namings: Counter[str] = Counter()
    attentions: Counter[str] = Counter()
    for name, shape in shapes.items():
        if name.endswith(COUNTER):
            continue
        meanings = read_name(name)
        for naming, attention, path in meanings:
            by_path.setdefault(path, shape)
            namings[naming] += 1
            if attention:
                attentions[attention] += 1
    # A cascade has the names of its trivial form too, and two more; ties go to the trivial form.
    ordered = ("lska_trivial", "lka_trivial", "lska", "lka")
    tied = {name: attentions[name] for name in ordered if name in attentions}
    return by_path, namings, Counter(tied)


def _count(numbers: set[int]) -> int:
    """Return how many there are from 0 on, gaps included unless a number is far off."""
    expected = max(numbers, default=-1) + 1
    return expected if expected <= 2 * len(numbers) else len(numbers)


def _channels(by_path: Mapping[str, Shape], stage: int) -> int | None:
    places = (
        "patch_embedding/projection/kernel",
        "patch_embedding/norm/scale",
        "norm/scale",
        "patch_embedding/projection/bias",
    )
    found = (_axis(by_path, f"stages/{stage}/{place}", 0) for place in places)
    return next((channels for channels in found if channels), None)


def _ffn_ratio(by_path: Mapping[str, Shape], stage: int, channels: int | None) -> int | None:
    hidden = _most_common(
        shape[0]
        for path, shape in by_path.items()
        if path.startswith(f"stages/{stage}/") and path.endswith("/ffn/expand/kernel") and shape
    )
    if not hidden or not channels or hidden % channels:
        return None
    return hidden // channels


def _kernel_size(
    by_path: Mapping[str, Shape], attention: str
) -> tuple[int | None, tuple[int, ...]]:
    """Return k, or None where no k has these kernels, and the sizes that most kernels have."""
    steps = {"lska": (0, 2), "lka": (0, 1), "lska_trivial": (0,), "lka_trivial": (0,)}[attention]
    sizes = tuple(
        _most_common(
            # Either axis: of an exchanged pair of 1-D kernels the size is right all the same.
            max(shape[2:])
            for path, shape in by_path.items()
            if path.endswith(f"/attention/gate/depthwise/{step}/kernel") and len(shape) == 4
        )
        or 0
        for step in steps
    )
    if attention.endswith("_trivial"):
        return (sizes[0] if sizes[0] % 2 else None), sizes
    local, dilated = sizes
    dilation = (local + 1) // 2
    k = dilation * (dilated - 1) + local
    if k < 1 or dilation != default_dilation(k):
        return None, sizes
    try:
        spec = kernel_spec(k)
    except ValueError:
        return None, sizes
    return (k if (spec.local_size, spec.dilated_size) == sizes else None), sizes


def _most_common(values: Iterator[int]) -> int | None:
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None


def _axis(by_path: Mapping[str, Shape], path: str, axis: int) -> int | None:
    shape = by_path.get(path, ())
    return shape[axis] if len(shape) > axis else None


def _conv(path: str, kernel: Shape) -> dict[str, Shape]:
    return {f"{path}/kernel": kernel, f"{path}/bias": kernel[-1:]}


def _norm(path: str, channels: int) -> dict[str, Shape]:
    return {f"{path}/scale": (channels,), f"{path}/bias": (channels,)}


def _batch_norm(path: str, channels: int) -> dict[str, Shape]:
    statistics = {f"{path}/mean": (channels,), f"{path}/var": (channels,)}
    return _norm(path, channels) | statistics


def _block(path: str, channels: int, ratio: int, config: VANConfig) -> dict[str, Shape]:
    hidden = channels * ratio
    square = (channels, channels)
    shapes: dict[str, Shape] = {
        f"{path}/scale_1/scale": (channels,),
        f"{path}/scale_2/scale": (channels,),
    }
    shapes |= _batch_norm(f"{path}/norm_1", channels)
    shapes |= _conv(f"{path}/attention/proj_in", square)
    for step, kernel in enumerate(gate_kernels(config)):
        shapes |= _conv(f"{path}/attention/gate/depthwise/{step}", (*kernel, 1, channels))
    shapes |= _conv(f"{path}/attention/gate/pointwise", square)
    shapes |= _conv(f"{path}/attention/proj_out", square)
    shapes |= _batch_norm(f"{path}/norm_2", channels)
    shapes |= _conv(f"{path}/ffn/expand", (channels, hidden))
    shapes |= _conv(f"{path}/ffn/depthwise", (FFN_KERNEL, FFN_KERNEL, 1, hidden))
    return shapes | _conv(f"{path}/ffn/project", (hidden, channels))
