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
LAYER_NORM_EPSILON = 1e-6
# Search for the nearest valid k stays instant below it; no image is as large.
LARGEST_K = 9999


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
      attention: one of ``ATTENTION_NAMES``.
      k: extent of the large kernel.
      dilation: d of the cascade; None is the reference's choice for k, which becomes None if it is
        given. Not for trivial forms.
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

    attention: str = "lska"
    k: int = DEFAULT_KERNEL_SIZE
    dilation: int | None = None
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
        if self.dilation == default_dilation(self.k):
            # One config for one network.
            object.__setattr__(self, "dilation", None)

    @property
    def is_trivial(self) -> bool:
        """Whether the large kernel is one undilated kernel, not a cascade."""
        return self.attention.endswith("_trivial")

    @property
    def is_separable(self) -> bool:
        """Whether the kernels are 1-D pairs."""
        return self.attention.startswith("lska")


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``VANConfig``; [] if they make a network."""
    problems = [
        *check_choice(fields, "attention", ATTENTION_NAMES),
        *check_stages(fields, ("dims", "depths", "ffn_ratios")),
        *check_computation(fields),
        *check_counts(fields, ("stem_stride",), low=1),
    ]
    if not problems:
        problems += _check_kernel(fields["attention"], fields["k"], fields["dilation"])
    if not is_number(fields["layer_norm_epsilon"]) or not 0 < fields["layer_norm_epsilon"] < 1:
        problems.append(
            f"layer_norm_epsilon={fields['layer_norm_epsilon']!r} must be above 0 and below 1."
        )
    return problems


def _check_kernel(attention: str, k: Any, dilation: Any) -> list[str]:
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
    sizes = () if named_model(config) else ("dims", "depths", "ffn_ratios")
    return describe_fields(config, f"a VAN with {config.attention}", (*kernel, *sizes))


def summary(config: VANConfig) -> str:
    """Return what a model card says of a config."""
    paper = " ([arXiv 2309.01439](https://arxiv.org/abs/2309.01439))" if config.is_separable else ""
    name = "large separable kernel attention" if config.is_separable else "large kernel attention"
    form = "the undilated form of " if config.is_trivial else ""
    return (
        "A Visual Attention Network ([arXiv 2202.09741](https://arxiv.org/abs/2202.09741)) with\n"
        f"{form}{name}{paper}, k = {config.k}, for lska_jax.\n"
        f"LayerNorm epsilon {config.layer_norm_epsilon:g}."
    )


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
    names="lska_jax.weights.names.van:NAMES",
    fold="lska_jax.models.van_fold:fold",
    transfer="lska_jax.weights.transfer:transfer_arrays",
)
