"""The check of what the task of masked images reads of a config; without jax.

Its own keys are in the group ``config.masked_images``:

| Key | Default | |
|---|---|---|
| ``patch_size`` | 0 | side of what is masked, in pixels; 0 is a place of the last map |
| ``ratio`` | 0.6 | part of the patches that are masked |

``model.num_classes`` is the number of values that are predicted at each place of the last map: all
channels of the pixels that it stands for.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from lska_jax.data.sources import SourceFacts
from lska_jax.running.value_checks import check_range
from lska_jax.tasks.classification_check import check_images

DEFAULTS: dict[str, Any] = {"patch_size": 0, "ratio": 0.6}
# What is about labels, and has to be off.
_OFF = {
    "data.erase_prob": 0.0,
    "data.mixup_alpha": 0.0,
    "data.cutmix_alpha": 0.0,
    "data.multi_label": False,
    "data.sampling": "uniform",
    "data.views": "one",
    "training.label_smoothing": 0.0,
    "training.class_weights": "",
    "training.teacher": "",
}


def masked_images_section(**fields: Any) -> ConfigDict:
    """Return a run's ``config.masked_images``: the defaults, and what replaces them."""
    return ConfigDict({**DEFAULTS, **fields})


def turn_labels_off(config: ConfigDict) -> None:
    """Set everything that is about labels as the task needs it; the config is changed in place."""
    for key, off in _OFF.items():
        group, name = key.split(".")
        config[group][name] = off


def check_config(config: ConfigDict, problems: list[str]) -> None:
    """Add a sentence for every value that the task cannot work with."""
    check_images(config, problems)
    own, channels = config.masked_images, config.model.in_channels
    count = config.model.num_classes
    if count % channels or math.isqrt(count // channels) ** 2 != count // channels:
        problems.append(
            f"model.num_classes={count} must be {channels} (model.in_channels) times the square of "
            "the network's stride: at each place of the last map so many values are predicted."
        )
    check_range(problems, "masked_images.ratio", own.ratio, above=0, below=1)
    check_range(problems, "masked_images.patch_size", own.patch_size, low=0)
    size = config.data.image_size
    if own.patch_size > 0 and (size % own.patch_size or size == own.patch_size):
        allowed = [str(side) for side in range(2, size) if size % side == 0]
        problems.append(
            f"masked_images.patch_size={own.patch_size} must divide data.image_size={size} into "
            f"patches; allowed: {', '.join(allowed)}, or 0."
        )
    for key, off in _OFF.items():
        group, name = key.split(".")
        if config[group][name] != off:
            problems.append(f"{key}={config[group][name]!r} is about labels; set {off!r}.")


def accept_any_classes(config: ConfigDict, facts: SourceFacts, where: str) -> None:
    """Take a split of any classes: they are not read."""
    del config, facts, where
