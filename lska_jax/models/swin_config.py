"""The Swin Transformer as facts: config, named models, preprocessing, checks.

Swin: arXiv 2103.14030. No jax here, so that a config can be checked before anything heavy is
imported; ``swin`` builds the network.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from lska_jax.models.checks import check_computation, check_counts, check_stages
from lska_jax.models.config import NetworkConfig, describe_fields
from lska_jax.models.table import Family, Preprocessing, named_model


class Windows(NamedTuple):
    """The windows of one stage, in pixels of its maps.

    Attributes:
      side: height and width of a window.
      shift: how far every second block moves its windows; 0 where none does.
    """

    side: int
    shift: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinConfig(NetworkConfig):
    """What decides a Swin Transformer's parameters and computation, beside ``NetworkConfig``.

    Attributes:
      dims: channels of each stage.
      depths: blocks of each stage.
      heads: of the attention of each stage; they share its channels.
      window: side of the attention's windows, in pixels of a map.
      patch_size: side and stride of the first convolution, in pixels of the image: 4 in the paper;
        1 or 2 suit small images.
      image_size: side in pixels of the images that the windows are laid out for; others can be
        given all the same. A stage whose map of such an image is one window or less has that for
        its window, and never shifts it.
      drop_rate: dropout of the embedded patches, of the attention's outputs and in the MLPs.
    """

    dims: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    patch_size: int = 4
    image_size: int = 224
    drop_rate: float = 0.0

    def windows_of(self, stage: int) -> Windows:
        """Return the windows of a stage, counted from 0."""
        # Maps of an odd side are padded before they are merged.
        side = -(-self.image_size // (self.patch_size * 2**stage))
        if side <= self.window:
            return Windows(side, shift=0)
        return Windows(self.window, shift=self.window // 2)


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``SwinConfig``; [] if they make a network."""
    problems = [
        *check_stages(fields, ("dims", "depths", "heads")),
        *check_counts(fields, ("window", "patch_size", "image_size"), low=1),
        *check_computation(fields),
    ]
    if problems:
        return problems
    for stage, (channels, heads) in enumerate(zip(fields["dims"], fields["heads"], strict=True)):
        if channels % heads:
            problems.append(
                f"heads[{stage}]={heads} do not divide dims[{stage}]={channels}; all heads have as "
                "many channels."
            )
    if fields["image_size"] % fields["patch_size"]:
        problems.append(
            f"image_size={fields['image_size']} must be a multiple of "
            f"patch_size={fields['patch_size']}."
        )
    return problems


def describe(config: SwinConfig) -> str:
    """Return a config in a few words, as in "swin_tiny_patch4_window7_224, 1000 classes"."""
    sizes = ("dims", "depths", "heads", "window", "patch_size", "image_size")
    return describe_fields(config, "a Swin", () if named_model(config) else sizes)


def summary(config: SwinConfig) -> str:
    """Return what a model card says of a config."""
    return (
        "A Swin Transformer ([arXiv 2103.14030](https://arxiv.org/abs/2103.14030)) with windows of "
        f"{config.window} x {config.window},\nfor lska_jax."
    )


# Swin, arXiv 2103.14030, section 3.3: the layouts that its three networks share.
_PAPER = {"window": 7, "patch_size": 4, "image_size": 224}

FAMILY = Family(
    name="swin",
    config=SwinConfig,
    models={
        "swin_tiny_patch4_window7_224": {
            "dims": (96, 192, 384, 768),
            "depths": (2, 2, 6, 2),
            "heads": (3, 6, 12, 24),
            **_PAPER,
        },
        "swin_small_patch4_window7_224": {
            "dims": (96, 192, 384, 768),
            "depths": (2, 2, 18, 2),
            "heads": (3, 6, 12, 24),
            **_PAPER,
        },
        "swin_base_patch4_window7_224": {
            "dims": (128, 256, 512, 1024),
            "depths": (2, 2, 18, 2),
            "heads": (4, 8, 16, 32),
            **_PAPER,
        },
    },
    network="lska_jax.models.swin:Swin",
    check=check,
    describe=describe,
    summary=summary,
    stem="patch_embedding/projection/kernel",
    head=("classifier/kernel", "classifier/bias"),
    preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    unseen=("image_size",),
    names="lska_jax.weights.names.swin:NAMES",
    no_decay=("bias_table",),
    image_multiple=lambda fields: fields["patch_size"],
)
