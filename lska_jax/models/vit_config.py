"""The Vision Transformer and its kin as facts: config, named sizes, preprocessing, checks.

ViT: arXiv 2010.11929. DeiT: arXiv 2012.12877. DeiT-III: arXiv 2204.07118. No jax here, so that a
config can be checked before anything heavy is imported; ``vit`` builds the network.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from lska_jax.models.checks import check_choice, check_computation, check_counts
from lska_jax.models.config import NetworkConfig, describe_fields
from lska_jax.models.table import Family, Preprocessing, named_model

# ViT and DeiT are one network whose weights want different images. The distilled DeiT has a second
# token with a head of its own; DeiT-III has layer scale, and positions of patches alone.
KINDS = ("vit", "deit", "deit_distilled", "deit3")
LAYER_NORM_EPSILON = 1e-6


class Size(NamedTuple):
    """Channels, blocks and attention heads."""

    dim: int
    depth: int
    heads: int


# ViT's table 1 and DeiT's table 1; medium is DeiT-III's (its code).
SIZES = {
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "medium": Size(512, 12, 8),
    "base": Size(768, 12, 12),
}
# What each kind's models were published in.
_NAMES = {
    "vit": ("vit_{}_patch16_224", ("tiny", "small", "base")),
    "deit": ("deit_{}_patch16_224", ("tiny", "small", "base")),
    "deit_distilled": ("deit_{}_distilled_patch16_224", ("tiny", "small", "base")),
    "deit3": ("deit3_{}_patch16_224", ("small", "medium", "base")),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(NetworkConfig):
    """What decides a Vision Transformer's parameters and computation, beside ``NetworkConfig``.

    Attributes:
      kind: one of ``KINDS``.
      dim: channels of the tokens.
      depth: blocks.
      heads: of the attention; they divide ``dim``.
      mlp_ratio: hidden over input channels of each MLP.
      patch_size: side of the patches, in pixels; 2 or 4 suit small images.
      position_grid: side of the grid of patches that the stored positions are of. For images with
        another number of patches they are resampled.
      num_classes: size of the logits; 0 makes the model return the class token, normalised.
      drop_rate: dropout behind the positions, the attentions and in the MLPs.
    """

    kind: str = "deit"
    dim: int = SIZES["tiny"].dim
    depth: int = SIZES["tiny"].depth
    heads: int = SIZES["tiny"].heads
    mlp_ratio: int = 4
    patch_size: int = 16
    position_grid: int = 14
    drop_rate: float = 0.0

    @property
    def is_distilled(self) -> bool:
        """Whether there is a distillation token with a head of its own."""
        return self.kind == "deit_distilled"

    @property
    def has_layer_scale(self) -> bool:
        """Whether each residual branch is scaled, channel by channel."""
        return self.kind == "deit3"

    @property
    def prefix_tokens(self) -> int:
        """Tokens ahead of the patches: the class token, and the distillation token."""
        return 2 if self.is_distilled else 1

    @property
    def placed_prefix_tokens(self) -> int:
        """Tokens ahead of the patches that have a position."""
        return 0 if self.kind == "deit3" else self.prefix_tokens


def check(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the fields of a ``ViTConfig``; [] if they make a network."""
    counts = ("dim", "depth", "heads", "mlp_ratio", "patch_size", "position_grid")
    problems = [
        *check_choice(fields, "kind", KINDS),
        *check_counts(fields, counts, low=1),
        *check_computation(fields),
    ]
    if not problems and fields["dim"] % fields["heads"]:
        problems.append(
            f"heads={fields['heads']} do not divide dim={fields['dim']}; each head has as many "
            "channels, in the published networks 64."
        )
    return problems


def describe(config: ViTConfig) -> str:
    """Return a config in a few words, as in "deit_tiny_patch16_224, 1000 classes"."""
    grid = ("patch_size", "position_grid")
    if named_model(config):
        # What the name stands for is not repeated.
        usual = FAMILY.defaults
        shown = tuple(field for field in grid if getattr(config, field) != usual[field])
    else:
        shown = ("dim", "depth", "heads", *grid)
    return describe_fields(config, f"a Vision Transformer of the kind {config.kind}", shown)


_SUMMARIES = {
    "vit": "A Vision Transformer ([arXiv 2010.11929](https://arxiv.org/abs/2010.11929))",
    "deit": "A DeiT ([arXiv 2012.12877](https://arxiv.org/abs/2012.12877))",
    "deit_distilled": (
        "A distilled DeiT ([arXiv 2012.12877](https://arxiv.org/abs/2012.12877)), the mean of\n"
        "both heads' logits"
    ),
    "deit3": "A DeiT-III ([arXiv 2204.07118](https://arxiv.org/abs/2204.07118))",
}


def summary(config: ViTConfig) -> str:
    """Return what a model card says of a config."""
    side = config.patch_size
    return (
        f"{_SUMMARIES[config.kind]},\nfor lska_jax: {config.depth} blocks of {config.dim} channels "
        f"and {config.heads} heads, patches of {side}x{side} pixels."
    )


_IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Google's code takes pixels from -1 to 1, Meta's what ImageNet's pixels have.
PREPROCESSINGS = {kind: Preprocessing() if kind == "vit" else _IMAGENET for kind in KINDS}
_MODELS = {
    name.format(size): {"kind": kind, **SIZES[size]._asdict()}
    for kind, (name, sizes) in _NAMES.items()
    for size in sizes
}

FAMILY = Family(
    name="vit",
    config=ViTConfig,
    models=_MODELS,
    network="lska_jax.models.vit:ViT",
    check=check,
    describe=describe,
    summary=summary,
    stem="patch_embedding/kernel",
    head=(
        "classifier/kernel",
        "classifier/bias",
        "distillation_classifier/kernel",
        "distillation_classifier/bias",
    ),
    preprocessing=_IMAGENET,
    preprocessings={name: PREPROCESSINGS[fields["kind"]] for name, fields in _MODELS.items()},
    names="lska_jax.weights.names.vit:NAMES",
    no_decay=("positions",),
    image_multiple=lambda fields: fields["patch_size"],
)
