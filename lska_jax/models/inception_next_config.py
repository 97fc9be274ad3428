"""InceptionNeXt as facts: config, named sizes, preprocessing, checks.

InceptionNeXt: arXiv 2303.16900. No jax here, so that a config can be checked before anything heavy
is imported; ``inception_next`` builds the network.
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


class Size(NamedTuple):
    """Channels, blocks and MLP expansion of the stages, and how the mixer divides the channels."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 3)
    band_size: int = 11
    branch_divisor: int = 8


# Table 2 of the paper; atto is that of its code.
SIZES = {
    "atto": Size((40, 80, 160, 320), (2, 2, 6, 2), band_size=9, branch_divisor=4),
    "tiny": Size((96, 192, 384, 768), (3, 3, 9, 3)),
    "small": Size((96, 192, 384, 768), (3, 3, 27, 3)),
    "base": Size((128, 256, 512, 1024), (3, 3, 27, 3)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class InceptionNeXtConfig(NetworkConfig):
    """What decides an InceptionNeXt's parameters and computation, beside ``NetworkConfig``.

    Attributes:
      dims: channels of each stage.
      depths: blocks of each stage.
      mlp_ratios: hidden over input channels of each stage's MLP.
      band_size: k of the mixer's 1 x k and k x 1 kernels, odd.
      branch_divisor: each of the mixer's three convolutions has the channels of its stage divided
        by this; the other channels pass unchanged.
      patch_size: kernel and stride of the first convolution: 4 in the paper; 1 or 2 suit small
        images.
      num_classes: size of the logits; 0 makes the model return the hidden layer of the head.
      drop_rate: dropout ahead of the classifier.
      implementation: formulation of the depth-wise convolutions, see ``ops.depthwise_conv``.
    """

    dims: tuple[int, ...] = SIZES["tiny"].dims
    depths: tuple[int, ...] = SIZES["tiny"].depths
    mlp_ratios: tuple[int, ...] = SIZES["tiny"].mlp_ratios
    band_size: int = SIZES["tiny"].band_size
    branch_divisor: int = SIZES["tiny"].branch_divisor
    patch_size: int = 4
    drop_rate: float = 0.0
    implementation: str | Sequence[str] = "auto"

    @property
    def least_side(self) -> int:
        """Side in pixels of the smallest images: one pixel of the last map."""
        return self.patch_size * 2 ** (len(self.dims) - 1)


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of an ``InceptionNeXtConfig``; [] if nothing is."""
    problems = [
        *check_stages(fields, ("dims", "depths", "mlp_ratios")),
        *check_computation(fields),
        *check_counts(fields, ("band_size", "patch_size"), low=1),
        # Three convolutions share the channels.
        *check_counts(fields, ("branch_divisor",), low=3),
    ]
    if not problems:
        divisor = fields["branch_divisor"]
        if fields["band_size"] % 2 == 0:
            problems.append(f"band_size={fields['band_size']} must be odd.")
        problems += [
            f"dims[{stage}]={channels} must be a multiple of branch_divisor={divisor}."
            for stage, channels in enumerate(fields["dims"])
            if channels % divisor
        ]
    return problems


def describe(config: InceptionNeXtConfig) -> str:
    """Return a config in a few words, as in "inception_next_tiny, 1000 classes"."""
    sizes = ("dims", "depths", "mlp_ratios", "band_size", "branch_divisor")
    shown = () if named_model(config) else sizes
    patch = () if config.patch_size == 4 else ("patch_size",)
    return describe_fields(config, "an InceptionNeXt", (*shown, *patch))


def summary(config: InceptionNeXtConfig) -> str:
    """Return what a model card says of a config."""
    k = config.band_size
    return (
        "An InceptionNeXt ([arXiv 2303.16900](https://arxiv.org/abs/2303.16900)): 3 x 3, "
        f"1 x {k} and {k} x 1\ndepth-wise convolutions of some channels each, for lska_jax."
    )


# ImageNet's mean and std; the crops are those of timm's weights.
_PREPROCESSING = Preprocessing(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875
)

FAMILY = Family(
    name="inception_next",
    config=InceptionNeXtConfig,
    models={f"inception_next_{size}": fields._asdict() for size, fields in SIZES.items()},
    network="lska_jax.models.inception_next:InceptionNeXt",
    check=check,
    describe=describe,
    summary=summary,
    stem="stem/projection/kernel",
    head=("classifier/kernel", "classifier/bias"),
    preprocessing=_PREPROCESSING,
    preprocessings={"inception_next_base": _PREPROCESSING._replace(crop_pct=0.95)},
    names="lska_jax.weights.names.inception_next:NAMES",
    fold="lska_jax.models.inception_next_fold:fold",
)
