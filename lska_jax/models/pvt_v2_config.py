"""The Pyramid Vision Transformer v2 as facts: config, named sizes, preprocessing, checks.

PVT v2: arXiv 2106.13797. No jax here, so that a config can be checked before anything heavy is
imported; ``pvt_v2`` builds the network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lska_jax.models.checks import (
    check_computation,
    check_counts,
    check_stages,
)
from lska_jax.models.config import NetworkConfig, describe_fields
from lska_jax.models.table import Family, Preprocessing, named_model

# The last norm of a stage and those of its blocks have the first; those of the patch embeddings
# and behind the reduction of keys and values have the second.
LAYER_NORM_EPSILON = 1e-6
REDUCTION_NORM_EPSILON = 1e-5
# Side of the map that linear attention takes keys and values from (section 3.2 of the paper).
POOLED_SIDE = 7


class Size(NamedTuple):
    """Channels, blocks, heads, FFN expansion, reduction of the stages, and the attention's form."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...] = (1, 2, 5, 8)
    ffn_ratios: tuple[int, ...] = (8, 8, 4, 4)
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    is_linear: bool = False


_DIMS = (64, 128, 320, 512)
# Table 1 of the paper.
SIZES = {
    "b0": Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": Size(_DIMS, (2, 2, 2, 2)),
    "b2": Size(_DIMS, (3, 4, 6, 3)),
    "b2_li": Size(_DIMS, (3, 4, 6, 3), reductions=(1, 1, 1, 1), is_linear=True),
    "b3": Size(_DIMS, (3, 4, 18, 3)),
    "b4": Size(_DIMS, (3, 8, 27, 3)),
    "b5": Size(_DIMS, (3, 6, 40, 3), ffn_ratios=(4, 4, 4, 4)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PVTv2Config(NetworkConfig):
    """Everything that decides a PVT v2's parameters and computation, beside ``NetworkConfig``.

    Attributes:
      dims: channels of each stage.
      depths: blocks of each stage.
      heads: of the attention in each stage.
      ffn_ratios: hidden over input channels of each stage's FFN.
      reductions: side, in pixels, of the patches that become one key and value each, of each
        stage; 1 takes every pixel.
      is_linear: keys and values come from the map pooled to 7 x 7, whatever its size, in every
        stage (and a ReLU stands in the FFN); ``reductions`` are 1 then.
      drop_rate: dropout behind the attention and in the FFNs.
      stem_stride: stride of the first patch embedding: 4 in the paper; 1 or 2 suit small images.
      implementation: formulation of the depth-wise convolutions, see ``ops.depthwise_conv``.
    """

    dims: tuple[int, ...] = SIZES["b0"].dims
    depths: tuple[int, ...] = SIZES["b0"].depths
    heads: tuple[int, ...] = SIZES["b0"].heads
    ffn_ratios: tuple[int, ...] = SIZES["b0"].ffn_ratios
    reductions: tuple[int, ...] = SIZES["b0"].reductions
    is_linear: bool = False
    drop_rate: float = 0.0
    stem_stride: int = 4
    implementation: str | Sequence[str] = "auto"

    @property
    def least_side(self) -> int:
        """Side in pixels of the smallest images that leave every stage a key and value."""
        strides = (self.stem_stride * 2**stage for stage in range(len(self.dims)))
        # Every embedding rounds up: a stage's map has ceil(side / stride) pixels a side.
        return max((r - 1) * stride for r, stride in zip(self.reductions, strides, strict=True)) + 1


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``PVTv2Config``; [] if they make a network."""
    problems = [
        *check_stages(fields, ("dims", "depths", "heads", "ffn_ratios", "reductions")),
        *check_computation(fields),
        *check_counts(fields, ("stem_stride",), low=1),
    ]
    if not isinstance(fields["is_linear"], bool):
        problems.append(f"is_linear={fields['is_linear']!r} must be True or False.")
    if not problems:
        problems += _check_attention(fields)
    return problems


def _check_attention(fields: Mapping[str, Any]) -> list[str]:
    problems = [
        f"heads={fields['heads']}: {heads} heads cannot share the {channels} channels of stage "
        f"{stage}; take a divisor of {channels}."
        for stage, (channels, heads) in enumerate(
            zip(fields["dims"], fields["heads"], strict=True), start=1
        )
        if channels % heads
    ]
    if fields["is_linear"] and set(fields["reductions"]) != {1}:
        problems.append(
            f"reductions={fields['reductions']}: linear attention pools instead; they have to be 1."
        )
    return problems


def describe(config: PVTv2Config) -> str:
    """Return a config in a few words, as in "pvt_v2_b0, 1000 classes"."""
    kind = "a PVT v2 with linear attention" if config.is_linear else "a PVT v2"
    sizes = ("dims", "depths", "heads", "ffn_ratios", "reductions")
    return describe_fields(config, kind, () if named_model(config) else sizes)


def summary(config: PVTv2Config) -> str:
    """Return what a model card says of a config."""
    form = "linear " if config.is_linear else ""
    return (
        "A Pyramid Vision Transformer v2 ([arXiv 2106.13797](https://arxiv.org/abs/2106.13797))\n"
        f"with {form}spatial-reduction attention, for lska_jax."
    )


FAMILY = Family(
    name="pvt_v2",
    config=PVTv2Config,
    models={f"pvt_v2_{size}": fields._asdict() for size, fields in SIZES.items()},
    network="lska_jax.models.pvt_v2:PVTv2",
    check=check,
    describe=describe,
    summary=summary,
    stem="stages/0/patch_embedding/projection/kernel",
    head=("classifier/kernel", "classifier/bias"),
    # ImageNet's mean and std; the crop is that of timm's weights.
    preprocessing=Preprocessing(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.9
    ),
    unseen=("stem_stride",),
    names="lska_jax.weights.names.pvt_v2:NAMES",
)
