"""The rivals' families as facts that tests hold them to: a new family is one more record here.

Figures are measured on timm's networks (timm has no UniRepLKNet: on its authors').
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lska_jax.models.table import Family, families, model_entry


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FamilyRecord:
    """What a family's networks give, and small networks of it.

    Attributes:
      model: the model whose outputs are stored at 96 x 64, with activations large and small, and
        after a training step.
      more_cases: other stored outputs, see ``golden_baselines``.
      is_trained_slowly: the training step takes too long for every change.
      untrained: how many arrays have no gradient, biases ahead of a BatchNorm; 0 where there is
        no BatchNorm.
      costs: {model: parameters at 1000 classes, 1e9 multiply-accumulates at 224 x 224}.
      narrow: fields of a small network with every kind of block.
      variants: fields in which other small networks differ from it.
      rates: of its dropout and drop path.
      side: of the square images that it takes.
      key_lists: models whose names, shapes and order are stored, one of each kind.
      more_key_lists: the same of other sizes.
      naming_maps: models whose names in other namings are stored.
      unseen: fields that a file of the small network does not show.
    """

    model: str
    costs: Mapping[str, tuple[int, float]]
    narrow: Mapping[str, Any]
    key_lists: tuple[str, ...]
    more_key_lists: tuple[str, ...] = ()
    naming_maps: tuple[str, ...] = ()
    more_cases: tuple[str, ...] = ()
    is_trained_slowly: bool = False
    untrained: int = 0
    variants: tuple[Mapping[str, Any], ...] = ()
    rates: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"drop_path_rate": 0.5, "drop_rate": 0.2}
    )
    side: int = 16
    unseen: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        return families()[model_entry(self.model).family]

    @property
    def cases(self) -> tuple[str, ...]:
        """Stored outputs that every change is held to: one program for both."""
        return f"{self.model}__96x64", f"{self.model}__96x64_small"

    @property
    def trained(self) -> str:
        return f"{self.model}__96x64_train"

    def config(self, **fields: Any) -> Any:
        """Return the small network's config."""
        return self.family.config(**{**self.narrow, **fields})


CONVNEXT = FamilyRecord(
    model="convnext_tiny",
    more_cases=(
        "convnext_tiny__131x101",
        "convnext_tiny__224x224",
        "convnext_small__96x128",
    ),
    is_trained_slowly=True,
    costs={
        "convnext_tiny": (28_589_128, 4.456),
        "convnext_small": (50_223_688, 8.684),
        "convnext_base": (88_591_464, 15.355),
        "convnext_large": (197_767_336, 34.361),
        "convnext_xlarge": (350_196_968, 60.921),
    },
    narrow={"dims": (4, 6), "depths": (1, 2), "num_classes": 5},
    rates={"drop_path_rate": 0.3},
    key_lists=("convnext_tiny",),
    more_key_lists=("convnext_small",),
    naming_maps=("convnext_tiny",),
)

VIT = FamilyRecord(
    model="deit_tiny_patch16_224",
    more_cases=(
        "deit_tiny_patch16_224__224x224",
        "deit_small_patch16_224__256x192",
        "deit_small_distilled_patch16_224__224x224",
        "deit3_small_patch16_224__96x128",
        "vit_small_patch16_224__160x288",
    ),
    costs={
        "vit_tiny_patch16_224": (5_717_416, 1.254),
        "vit_small_patch16_224": (22_050_664, 4.599),
        "vit_base_patch16_224": (86_567_656, 17.564),
        "deit_tiny_patch16_224": (5_717_416, 1.254),
        "deit_small_patch16_224": (22_050_664, 4.599),
        "deit_base_patch16_224": (86_567_656, 17.564),
        "deit_tiny_distilled_patch16_224": (5_910_800, 1.261),
        "deit_small_distilled_patch16_224": (22_436_432, 4.624),
        "deit_base_distilled_patch16_224": (87_338_192, 17.657),
        "deit3_small_patch16_224": (22_059_496, 4.599),
        "deit3_medium_patch16_224": (38_849_512, 7.991),
        "deit3_base_patch16_224": (86_585_320, 17.564),
    },
    narrow={
        **{"dim": 8, "depth": 2, "heads": 2, "patch_size": 4, "position_grid": 3},
        "num_classes": 5,
    },
    variants=({"kind": "deit_distilled"}, {"kind": "deit3"}),
    key_lists=(
        "deit_tiny_patch16_224",
        "deit_small_distilled_patch16_224",
        "deit3_small_patch16_224",
    ),
    naming_maps=("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"),
    unseen=("dim", "depth", "heads"),
)

SWIN = FamilyRecord(
    model="swin_tiny_patch4_window7_224",
    more_cases=(
        "swin_tiny_patch4_window7_224__132x100",
        "swin_tiny_patch4_window7_224__224x224",
        "swin_tiny_patch4_window7_224__256x192",
        "swin_small_patch4_window7_224__160x160",
    ),
    is_trained_slowly=True,
    costs={
        "swin_tiny_patch4_window7_224": (28_288_354, 4.491),
        "swin_small_patch4_window7_224": (49_606_258, 8.741),
        "swin_base_patch4_window7_224": (87_768_224, 15.431),
    },
    # Maps of 16 and 8 pixels: the first stage shifts its windows, the second never does.
    narrow={
        **{"dims": (8, 16), "depths": (2, 1), "heads": (2, 4)},
        **{"window": 8, "patch_size": 2, "image_size": 32, "num_classes": 5},
    },
    side=32,
    key_lists=("swin_tiny_patch4_window7_224",),
    more_key_lists=("swin_small_patch4_window7_224",),
    naming_maps=("swin_tiny_patch4_window7_224",),
    unseen=("image_size",),
)

PVT_V2 = FamilyRecord(
    model="pvt_v2_b0",
    is_trained_slowly=True,
    more_cases=(
        "pvt_v2_b0__131x101",
        "pvt_v2_b0__224x224",
        "pvt_v2_b2__96x128",
        "pvt_v2_b2_li__131x101",
    ),
    costs={
        "pvt_v2_b0": (3_666_760, 0.566),
        "pvt_v2_b1": (14_009_000, 2.108),
        "pvt_v2_b2": (25_362_856, 4.027),
        "pvt_v2_b2_li": (22_553_512, 3.889),
        "pvt_v2_b3": (45_238_696, 6.897),
        "pvt_v2_b4": (62_556_072, 10.101),
        "pvt_v2_b5": (81_956_008, 11.717),
    },
    narrow={
        **{"dims": (8, 16), "depths": (1, 1), "heads": (1, 2), "ffn_ratios": (2, 2)},
        **{"reductions": (2, 1), "num_classes": 5},
    },
    variants=({"reductions": (1, 1), "is_linear": True},),
    side=32,
    key_lists=("pvt_v2_b0", "pvt_v2_b2_li"),
    more_key_lists=("pvt_v2_b2",),
    naming_maps=("pvt_v2_b0",),
    unseen=("heads",),
)

INCEPTION_NEXT = FamilyRecord(
    model="inception_next_tiny",
    more_cases=("inception_next_tiny__131x101", "inception_next_tiny__224x224"),
    is_trained_slowly=True,
    # Of the stem and of each mixer's three convolutions.
    untrained=58,
    costs={
        "inception_next_atto": (4_156_520, 0.503),
        "inception_next_tiny": (28_055_680, 4.189),
        "inception_next_small": (49_374_016, 8.356),
        "inception_next_base": (86_672_136, 14.841),
    },
    narrow={
        **{"dims": (8, 16), "depths": (1, 1), "mlp_ratios": (2, 3), "band_size": 5},
        **{"branch_divisor": 4, "num_classes": 5},
    },
    side=20,
    key_lists=("inception_next_tiny",),
    naming_maps=("inception_next_tiny",),
)

UNIREPLKNET = FamilyRecord(
    model="unireplknet_a",
    more_cases=("unireplknet_a__131x101", "unireplknet_t__96x96"),
    is_trained_slowly=True,
    untrained=72,
    # Parameters as trained; multiply-accumulates of one merged kernel a block.
    costs={
        "unireplknet_a": (4_649_060, 0.640),
        "unireplknet_f": (6_489_328, 0.905),
        "unireplknet_p": (11_080_520, 1.573),
        "unireplknet_n": (18_818_880, 2.767),
        "unireplknet_t": (31_693_420, 4.899),
        "unireplknet_s": (56_456_704, 9.094),
    },
    # A block of each kind.
    narrow={"dims": (4,), "depths": (2,), "large_every": (2,), "num_classes": 5},
    rates={"drop_path_rate": 0.5},
    key_lists=("unireplknet_a",),
    more_key_lists=("unireplknet_t",),
)

RECORDS = (CONVNEXT, VIT, SWIN, PVT_V2, INCEPTION_NEXT, UNIREPLKNET)
