"""ConvNeXt as facts: config, named sizes, preprocessing, checks.

A ConvNet for the 2020s: arXiv 2201.03545. No jax here, so that a config can be checked before
anything heavy is imported; ``convnext`` builds the network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lska_jax.models.checks import (
    check_computation,
    check_counts,
    check_stages,
)
from lska_jax.models.config import NetworkConfig, describe_fields
from lska_jax.models.table import Family, Preprocessing, named_model

# Section 3 of the paper: channels of the first stage, doubled in each that follows, and blocks.
_WIDTHS = {"tiny": 96, "small": 96, "base": 128, "large": 192, "xlarge": 256}
SIZES = {
    size: {
        "dims": (width, 2 * width, 4 * width, 8 * width),
        "depths": (3, 3, 9, 3) if size == "tiny" else (3, 3, 27, 3),
    }
    for size, width in _WIDTHS.items()
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig(NetworkConfig):
    """Everything that decides a ConvNeXt's parameters and computation, beside ``NetworkConfig``.

    Attributes:
      dims: channels of each stage.
      depths: blocks of each stage.
      patch_size: kernel and stride of the first convolution: 4 in the paper; 1 or 2 suit small
        images.
      num_classes: size of the logits; 0 makes the model return pooled, normalised features.
      implementation: formulation of the depth-wise convolutions, see ``ops.depthwise_conv``.
    """

    dims: tuple[int, ...] = SIZES["tiny"]["dims"]
    depths: tuple[int, ...] = SIZES["tiny"]["depths"]
    patch_size: int = 4
    implementation: str | Sequence[str] = "auto"

    @property
    def least_side(self) -> int:
        """Least height and width of images, in pixels: less leaves the last stage no pixel."""
        return self.patch_size * 2 ** (len(self.dims) - 1)


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``ConvNeXtConfig``; [] if they make a network."""
    problems = [
        *check_stages(fields, ("dims", "depths")),
        *check_computation(fields),
        *check_counts(fields, ("patch_size",), low=1),
    ]
    return problems


def describe(config: ConvNeXtConfig) -> str:
    """Return a config in a few words, as in "convnext_tiny, 1000 classes"."""
    sizes = () if named_model(config) else ("dims", "depths")
    patch = () if config.patch_size == 4 else ("patch_size",)
    return describe_fields(config, "a ConvNeXt", (*sizes, *patch))


def summary(config: ConvNeXtConfig) -> str:
    """Return what a model card says of a config."""
    del config
    return (
        "A ConvNeXt ([arXiv 2201.03545](https://arxiv.org/abs/2201.03545)): 7 x 7 depth-wise\n"
        "convolutions and MLPs over channels, for lska_jax."
    )


FAMILY = Family(
    name="convnext",
    config=ConvNeXtConfig,
    models={f"convnext_{size}": fields for size, fields in SIZES.items()},
    network="lska_jax.models.convnext:ConvNeXt",
    check=check,
    describe=describe,
    summary=summary,
    stem="stem/projection/kernel",
    head=("classifier/kernel", "classifier/bias"),
    # That of the weights trained on ImageNet-1K alone.
    preprocessing=Preprocessing(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=0.875
    ),
    names="lska_jax.weights.names.convnext:NAMES",
    fold="lska_jax.models.convnext_fold:fold",
)
