"""The paper's comparison in small: networks of about a million parameters, one recipe.

    python train.py --config configs/small.py:convnext --config.data.source=folder:cifar10.tar
    python train.py --config configs/small.py:swin,digits

The argument is one of ``NETWORKS``, then ``digits`` for scikit-learn's digits in place of CIFAR-10.
Everything but ``config.model`` is that of ``configs/cifar10.py`` or ``configs/digits.py`` and the
same for all of them: a network's own recipe may well suit it better. All have seven blocks on maps
of a half, a quarter and an eighth of the image (DeiT on one map of a quarter); on digits the first
map is the image itself, as in ``configs/digits.py``.
Hardware: two CPU cores. Result: not yet run for all of them (docs/comparison.md).
"""

from typing import Any

from ml_collections import ConfigDict

from lska_jax.training.config import base_config, model_section
from lska_jax.training.small_recipe import use_cifar10, use_digits

_DEPTHS = (1, 2, 4)
# A named model of the family, and its fields for images of 32 x 32 pixels.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "van_lska": (
        "van_lska_tiny",
        {"dims": (32, 64, 128), "depths": _DEPTHS, "ffn_ratios": (4, 4, 4), "stem_stride": 2},
    ),
    "van_lka": (
        "van_lka_tiny",
        {"dims": (32, 64, 128), "depths": _DEPTHS, "ffn_ratios": (4, 4, 4), "stem_stride": 2},
    ),
    "convnext": (
        "convnext_tiny",
        {"dims": (40, 80, 160), "depths": _DEPTHS, "patch_size": 2},
    ),
    "deit": (
        "deit_tiny_patch16_224",
        {"dim": 108, "depth": 7, "heads": 3, "patch_size": 4, "position_grid": 8},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {
            "dims": (32, 64, 128),
            "depths": _DEPTHS,
            "heads": (1, 2, 4),
            "window": 4,
            "patch_size": 2,
            "image_size": 32,
        },
    ),
    "pvt_v2": (
        "pvt_v2_b0",
        {
            "dims": (32, 64, 128),
            "depths": _DEPTHS,
            "heads": (1, 2, 4),
            "ffn_ratios": (4, 4, 4),
            "reductions": (4, 2, 1),
            "stem_stride": 2,
        },
    ),
    "inception_next": (
        "inception_next_tiny",
        {"dims": (40, 80, 160), "depths": _DEPTHS, "mlp_ratios": (4, 4, 4), "patch_size": 2},
    ),
}
# Of each, the field that is the stride of the first convolution.
_STRIDES = ("stem_stride", "patch_size")


def get_config(argument: str = "") -> ConfigDict:
    """Return the config of one network, VAN-LSKA by default; see the head of this file.

    Raises:
      ValueError: another argument.
    """
    name, *rest = (argument or next(iter(NETWORKS))).split(",")
    if name not in NETWORKS or rest not in ([], ["digits"]):
        raise ValueError(
            f"Config argument {argument!r} is not understood; allowed: {', '.join(NETWORKS)}, each "
            "with ,digits behind it or not."
        )
    model, fields = NETWORKS[name]
    config = base_config()
    config.model = model_section(model, **fields)
    if not rest:
        use_cifar10(config)
    else:
        use_digits(config)
        for field in set(_STRIDES) & set(fields):
            config.model[field] //= 2
        if name == "swin":
            config.model.image_size = 8
        if name == "deit":
            config.model.position_grid = 4
    config.optimizer.epochs = 10
    config.training.ema_warmup = True
    return config
