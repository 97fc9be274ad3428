"""The Visual Attention Network as facts: config, named sizes, preprocessing, checks.

VAN: arXiv 2202.09741. LSKA: arXiv 2309.01439. No jax here, so that a config can be checked before
anything heavy is imported; ``van`` builds the network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lska_jax.models.checks import (
    check_choice,
    check_computation,
    check_counts,
    check_stages,
    is_count,
    is_number,
)
from lska_jax.models.config import NetworkConfig, describe_fields
from lska_jax.models.table import Family, named_model
from lska_jax.ops.kernel_spec import (
    DEFAULT_KERNEL_SIZE,
    check_odd_kernel,
    default_dilation,
    kernel_spec,
)

ATTENTION_NAMES = ("lska", "lka", "lska_trivial", "lka_trivial")
# What may have one value for each stage.
PER_STAGE = ("attention", "k", "dilation")
LAYER_NORM_EPSILON = 1e-6
# Search for the nearest valid k stays instant below it; no image is as large.
LARGEST_K = 9999


class Gate(NamedTuple):
    """The large kernel of one stage; fields are those of ``VANConfig``."""

    attention: str
    k: int
    dilation: int | None


class Size(NamedTuple):
    """Channels, blocks and FFN expansion of the four stages."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    ffn_ratios: tuple[int, ...]


# VAN, arXiv 2202.09741, table 2; B4 to B6 from its code.
SIZES = {
    "tiny": Size((32, 64, 160, 256), (3, 3, 5, 2), (8, 8, 4, 4)),
    "small": Size((64, 128, 320, 512), (2, 2, 4, 2), (8, 8, 4, 4)),
    "base": Size((64, 128, 320, 512), (3, 3, 12, 3), (8, 8, 4, 4)),
    "large": Size((64, 128, 320, 512), (3, 5, 27, 3), (8, 8, 4, 4)),
    "b4": Size((64, 128, 320, 512), (3, 6, 40, 3), (8, 8, 4, 4)),
    "b5": Size((96, 192, 480, 768), (3, 3, 24, 3), (8, 8, 4, 4)),
    "b6": Size((96, 192, 384, 768), (6, 6, 90, 6), (8, 8, 4, 4)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VANConfig(NetworkConfig):
    """Everything that decides a VAN's parameters and computation, with ``NetworkConfig``'s fields.

    Attributes:
      attention: one of ``ATTENTION_NAMES``, or one for each stage.
      k: extent of the large kernel, or one for each stage.
      dilation: d of the cascade, or one for each stage; None is the reference's choice for k, which
        becomes None if it is given. Not for trivial forms.
      dims: channels of each stage.
      depths: blocks of each stage.
      ffn_ratios: hidden over input channels of each stage's FFN.
      drop_rate: dropout in the FFNs.
      stem_stride: stride of the first patch embedding: 4 in the paper; 1 or 2 suit small images.
      layer_norm_epsilon: of every stage's LayerNorm; detection copies of the family have 1e-5.
      implementation: formulation of the depth-wise convolutions, see ``ops.depthwise_conv``.

    The fused kernels have first derivatives only.

    Raises:
      ValueError: values that make no network; every one is named.
    """

    attention: str | tuple[str, ...] = "lska"
    k: int | tuple[int, ...] = DEFAULT_KERNEL_SIZE
    dilation: int | tuple[int | None, ...] | None = None
    dims: tuple[int, ...] = SIZES["tiny"].dims
    depths: tuple[int, ...] = SIZES["tiny"].depths
    ffn_ratios: tuple[int, ...] = SIZES["tiny"].ffn_ratios
    drop_rate: float = 0.0
    stem_stride: int = 4
    layer_norm_epsilon: float = LAYER_NORM_EPSILON
    implementation: str | Sequence[str] = "auto"

    def __post_init__(self) -> None:
        """Bring the fields into plain form and check them."""
        super().__post_init__()
        gates = [
            gate._replace(dilation=None) if gate.dilation == default_dilation(gate.k) else gate
            for gate in gates_of(vars(self))
        ]
        # One config for one network.
        for name in PER_STAGE:
            values = tuple(getattr(gate, name) for gate in gates)
            object.__setattr__(self, name, values if len(set(values)) > 1 else values[0])

    def of_stage(self, stage: int) -> "VANConfig":
        """Return the config with one stage's attention, k and dilation for all."""
        return dataclasses.replace(self, **gates_of(vars(self))[stage]._asdict())

    @property
    def is_trivial(self) -> bool:
        """Whether the large kernel is one undilated kernel, not a cascade."""
        return self._gate.attention.endswith("_trivial")

    @property
    def is_separable(self) -> bool:
        """Whether the kernels are 1-D pairs."""
        return self._gate.attention.startswith("lska")

    @property
    def _gate(self) -> Gate:
        first, *others = gates_of(vars(self))
        if any(gate != first for gate in others):
            raise ValueError("The stages have different large kernels: ask config.of_stage(n).")
        return first


def gates_of(fields: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Return the large kernel of every stage, from the fields of a config."""
    stages = len(fields["depths"])
    each = (
        value if isinstance(value := fields[name], tuple) else (value,) * stages
        for name in PER_STAGE
    )
    return tuple(Gate(*gate) for gate in zip(*each, strict=True))


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``VANConfig``; [] if they make a network."""
    problems = [
        *check_stages(fields, ("dims", "depths", "ffn_ratios")),
        *check_computation(fields),
        *check_counts(fields, ("stem_stride",), low=1),
    ]
    problems += [
        f"{name}={fields[name]!r} needs one value, or one for each of the "
        f"{len(fields['depths'])} stages."
        for name in PER_STAGE
        if not problems
        and isinstance(fields[name], tuple)
        and len(fields[name]) != len(fields["depths"])
    ]
    if not problems:
        found = [_check_gate(gate) for gate in gates_of(fields)]
        problems += dict.fromkeys(problem for of_stage in found for problem in of_stage)
    if not is_number(fields["layer_norm_epsilon"]) or not 0 < fields["layer_norm_epsilon"] < 1:
        problems.append(
            f"layer_norm_epsilon={fields['layer_norm_epsilon']!r} must be above 0 and below 1."
        )
    return problems


def _check_gate(gate: Gate) -> list[str]:
    attention: str = gate.attention
    k: Any = gate.k
    dilation: Any = gate.dilation
    if wrong := check_choice(gate._asdict(), "attention", ATTENTION_NAMES):
        return wrong
    if not isinstance(k, int) or isinstance(k, bool):
        return [f"k={k!r} must be a whole number."]
    if k > LARGEST_K:
        return [f"k={k} must be at most {LARGEST_K}."]
    is_trivial = attention.endswith("_trivial")
    if dilation is not None and is_trivial:
        return [f"dilation={dilation!r}: {attention} has no dilation; leave it None."]
    if dilation is not None and not is_count(dilation, low=1):
        return [f"dilation must be at least 1, got {dilation!r}."]
    try:
        if is_trivial:
            check_odd_kernel(k)
        else:
            kernel_spec(k, dilation=dilation)
    except ValueError as error:
        return [str(error)]
    return []


def describe(config: VANConfig) -> str:
    """Return a config in a few words, as in "van_lska_tiny, k=23, 1000 classes"."""
    kernel = ("k",) if config.dilation is None else ("k", "dilation")
    sizes: tuple[str, ...] = () if named_model(config) else ("dims", "depths", "ffn_ratios")
    kind = f"a VAN with {_in_words(config.attention)}"
    if isinstance(config.attention, tuple):
        own = Size(config.dims, config.depths, config.ffn_ratios)
        if size := next((name for name, known in SIZES.items() if known == own), ""):
            kind, sizes = f"a VAN {size} with {_in_words(config.attention)}", ()
    return describe_fields(config, kind, (*kernel, *sizes))


def summary(config: VANConfig) -> str:
    """Return what a model card says of a config."""
    gates = gates_of(vars(config))
    words = {gate.attention: _name_attention(gate.attention) for gate in gates}
    stages = ""
    if len(set(gates)) > 1:
        each = ", ".join(f"{gate.attention} with k = {gate.k}" for gate in gates)
        stages = f"\nStage by stage: {each}."
    k = f", k = {config.k}" if isinstance(config.k, int) else ""
    return (
        "A Visual Attention Network ([arXiv 2202.09741](https://arxiv.org/abs/2202.09741)) with\n"
        f"{' and '.join(words.values())}{k}, for lska_jax.{stages}\n"
        f"LayerNorm epsilon {config.layer_norm_epsilon:g}."
    )


def _name_attention(attention: str) -> str:
    is_separable = attention.startswith("lska")
    paper = " ([arXiv 2309.01439](https://arxiv.org/abs/2309.01439))" if is_separable else ""
    name = "large separable kernel attention" if is_separable else "large kernel attention"
    form = "the undilated form of " if attention.endswith("_trivial") else ""
    return f"{form}{name}{paper}"


def _in_words(attention: str | tuple[str, ...]) -> str:
    return attention if isinstance(attention, str) else ", ".join(attention)


FAMILY = Family(
    name="van",
    config=VANConfig,
    models={
        f"van_{attention}_{size}": {"attention": attention, **SIZES[size]._asdict()}
        for attention in ATTENTION_NAMES
        for size in SIZES
    },
    network="lska_jax.models.van:VAN",
    check=check,
    describe=describe,
    summary=summary,
    stem="stages/0/patch_embedding/projection/kernel",
    head=("classifier/kernel", "classifier/bias"),
    unseen=("stem_stride", "layer_norm_epsilon"),
    per_stage=PER_STAGE,
    names="lska_jax.weights.names.van:NAMES",
    fold="lska_jax.models.van_fold:fold",
    transfer="lska_jax.weights.transfer:transfer_arrays",
)
