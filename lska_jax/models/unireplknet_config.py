"""UniRepLKNet as facts: config, named models, preprocessing, checks.

UniRepLKNet: arXiv 2311.15599. No jax here; ``unireplknet`` builds the network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lska_jax.models.checks import (
    check_computation,
    check_stages,
    is_count,
)
from lska_jax.models.config import NetworkConfig, describe_fields
from lska_jax.models.table import Family, Preprocessing, named_model


class Branch(NamedTuple):
    """A depth-wise convolution beside others whose outputs are added.

    Attributes:
      kernel_size: height and width, in taps.
      dilation: distance between taps, in pixels.
    """

    kernel_size: int
    dilation: int


LARGE_KERNEL = 13
SMALL_KERNEL = 3
# Of a large-kernel block: all of them lie within the first, so that one 13 x 13 can be their sum.
BRANCHES = (
    Branch(LARGE_KERNEL, 1),
    Branch(5, 1),
    Branch(7, 2),
    Branch(3, 3),
    Branch(3, 4),
    Branch(3, 5),
)


class Size(NamedTuple):
    """Channels, blocks, and every how many-th block is large, of the four stages."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    large_every: tuple[int, ...] = (0, 1, 1, 1)


SIZES = {
    "a": Size((40, 80, 160, 320), (2, 2, 6, 2)),
    "f": Size((48, 96, 192, 384), (2, 2, 6, 2)),
    "p": Size((64, 128, 256, 512), (2, 2, 6, 2)),
    "n": Size((80, 160, 320, 640), (2, 2, 8, 2)),
    "t": Size((80, 160, 320, 640), (3, 3, 18, 3), (0, 1, 2, 1)),
    "s": Size((96, 192, 384, 768), (3, 3, 27, 3), (0, 1, 3, 1)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniRepLKNetConfig(NetworkConfig):
    """What decides a UniRepLKNet's parameters and computation, beside ``NetworkConfig``.

    Attributes:
      dims: channels of each stage; the first is even, since the stem begins with half of it.
      depths: blocks of each stage.
      large_every: every how many-th block of each stage has the 13 x 13 kernel, the first among
        them; 0 is none. The others have a 3 x 3.
      implementation: formulation of the depth-wise convolutions, see ``ops.depthwise_conv``.
    """

    dims: tuple[int, ...] = SIZES["a"].dims
    depths: tuple[int, ...] = SIZES["a"].depths
    large_every: tuple[int, ...] = SIZES["a"].large_every
    implementation: str | Sequence[str] = "auto"

    def is_large(self, stage: int, block: int) -> bool:
        """Tell whether a block has the 13 x 13 kernel; both numbers count from 0."""
        every = self.large_every[stage]
        return every > 0 and block % every == 0


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``UniRepLKNetConfig``."""
    problems = check_stages(fields, ("dims", "depths"))
    if not problems:
        problems += _check_large_every(fields["large_every"], fields["depths"])
        if fields["dims"][0] % 2:
            problems.append(
                f"dims[0]={fields['dims'][0]} must be even: the stem begins with half as many "
                "channels."
            )
    return [*problems, *check_computation(fields)]


def _check_large_every(values: Any, depths: tuple[int, ...]) -> list[str]:
    if not isinstance(values, tuple) or len(values) != len(depths):
        return [f"large_every={values!r} must have one whole number for each of {depths} blocks."]
    return [
        f"large_every[{stage}]={value!r} must be a whole number from 0 to depths[{stage}]={depth}."
        for stage, (value, depth) in enumerate(zip(values, depths, strict=True))
        if not is_count(value, low=0) or value > depth
    ]


def describe(config: UniRepLKNetConfig) -> str:
    """Return a config in a few words, as in "unireplknet_a, 1000 classes"."""
    sizes = ("dims", "depths", "large_every")
    return describe_fields(config, "a UniRepLKNet", () if named_model(config) else sizes)


def summary(config: UniRepLKNetConfig) -> str:
    """Return what a model card says of a config."""
    del config
    return (
        "A UniRepLKNet ([arXiv 2311.15599](https://arxiv.org/abs/2311.15599)), whose blocks have "
        "13 x 13\ndepth-wise kernels beside dilated smaller ones, for lska_jax."
    )


FAMILY = Family(
    name="unireplknet",
    config=UniRepLKNetConfig,
    models={f"unireplknet_{size}": fields._asdict() for size, fields in SIZES.items()},
    network="lska_jax.models.unireplknet:UniRepLKNet",
    check=check,
    describe=describe,
    summary=summary,
    stem="stem/projection_1/kernel",
    head=("classifier/kernel", "classifier/bias"),
    preprocessing=Preprocessing(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=224 / 256
    ),
    names="lska_jax.weights.names.unireplknet:NAMES",
    fold="lska_jax.models.unireplknet_fold:fold",
)
