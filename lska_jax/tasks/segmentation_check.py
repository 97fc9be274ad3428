"""The check of what segmentation reads of a config, and of its data; without jax.

Its own keys are in the group ``config.segmentation``:

| Key | Default | |
|---|---|---|
| ``crop_size`` | (512, 512) | height and width of a training image |
| ``jitter`` | (0.5, 2.0) | range of the factor on the bounds of the training resize |
| ``most_of_a_class`` | 0.75 | part of a crop that one class may fill; 1 takes any crop |
| ``photometric`` | True | random light and colours |
| ``auxiliary_weight`` | 0.4 | of the auxiliary loss, where the head has one |
| ``adjust_logits`` | False | whether class weights leave alone how often a class is predicted |
| ``eval_canvas`` | (512, 1024) | height and width that wide images are padded to in evaluations |
| ``label_canvas`` | (2304, 3072) | the same of their labels |
| ``write_label_maps`` | True | whether evaluations write PNG files of the predicted classes |

The bounds of a resize are ``data.image_size`` for the shorter side and ``data.long_side`` for the
longer. Upright images have both canvases the other way round. ``training.class_weights`` has one
number a class.
"""

from typing import Any

from ml_collections import ConfigDict

from lska_jax.data.scenes import IGNORED_LABEL
from lska_jax.data.sources import SourceFacts
from lska_jax.models.heads import heads
from lska_jax.running.value_checks import check_entries, check_range, collect
from lska_jax.tasks.classification_check import check_weights

DEFAULTS: dict[str, Any] = {
    "crop_size": (512, 512),
    "jitter": (0.5, 2.0),
    "most_of_a_class": 0.75,
    "photometric": True,
    "auxiliary_weight": 0.4,
    "adjust_logits": False,
    "eval_canvas": (512, 1024),
    "label_canvas": (2304, 3072),
    "write_label_maps": True,
}
# What is classification's, and has to be off.
_OFF = {
    "data.rand_augment": "",
    "data.erase_prob": 0.0,
    "data.mixup_alpha": 0.0,
    "data.cutmix_alpha": 0.0,
    "training.label_smoothing": 0.0,
}


def segmentation_section(**fields: Any) -> ConfigDict:
    """Return a run's ``config.segmentation``: the defaults, and what replaces them."""
    return ConfigDict({**DEFAULTS, **fields})


def check_config(config: ConfigDict, problems: list[str]) -> None:
    """Add a sentence for every value that segmentation cannot work with."""
    check_dense(config, problems, task="segmentation")
    own = config.segmentation
    for name in ("crop_size", "eval_canvas", "label_canvas"):
        count = len(problems)
        check_entries(problems, f"segmentation.{name}", own[name], is_whole=True, low=1)
        if len(problems) == count and len(own[name]) != 2:
            problems.append(f"segmentation.{name}={own[name]} must be (height, width).")
    check_entries(problems, "segmentation.jitter", own.jitter, above=0)
    if len(own.jitter) != 2 or own.jitter[0] > own.jitter[-1]:
        problems.append(f"segmentation.jitter={own.jitter} must be (low, high) with low <= high.")
    check_range(problems, "segmentation.most_of_a_class", own.most_of_a_class, above=0, high=1)
    check_range(problems, "segmentation.auxiliary_weight", own.auxiliary_weight, low=0)
    weights, classes = config.training.class_weights, config.model.num_classes
    if classes > IGNORED_LABEL:
        problems.append(
            f"model.num_classes={classes}: label maps are read as ids of 8 bits, of which 255 is "
            f"no class, so that there are at most {IGNORED_LABEL} classes."
        )
    check_weights(problems, weights, classes, can_balance=False)
    if own.adjust_logits and not weights:
        problems.append(
            "segmentation.adjust_logits=True adjusts logits by training.class_weights, of which "
            "there are none; give one number a class, or leave it out."
        )
    from lska_jax.data.opening_label_maps import parse_spec

    collect(problems, lambda: parse_spec(config.data.source))


def check_dense(config: ConfigDict, problems: list[str], *, task: str) -> None:
    """Add what segmentation and detection ask alike: the head, the images, what has to be off."""
    head = config.model.get("head")
    fitting = [name for name, one in heads().items() if one.task == task]
    if head is None or head.get("name") not in fitting:
        given = "has no head" if head is None else f"has the head {head.get('name')!r}"
        problems.append(
            f"task={task!r} needs a model with one of the heads {', '.join(fitting)}; "
            f"model.name={config.model.name!r} {given}. In the config file: "
            f"config.model = model_section({config.model.name!r}, head={fitting[0]!r})."
        )
    data = config.data
    if config.model.in_channels != 3:
        problems.append(f"model.in_channels={config.model.in_channels}: images are read as RGB, 3.")
    for name in ("mean", "std"):
        if len(data[name]) != 3:
            problems.append(f"data.{name}={data[name]} needs one value for each of 3 channels.")
    check_entries(problems, "data.mean", data.mean, low=0, high=1)
    check_entries(problems, "data.std", data.std, above=0)
    check_range(problems, "data.hflip_prob", data.hflip_prob, low=0, high=1)
    check_range(problems, "data.max_image_pixels", data.max_image_pixels, low=1)
    check_range(problems, "data.image_size", data.image_size, low=1)
    if data.crop_mode != "whole":
        problems.append(f"data.crop_mode={data.crop_mode!r}: {task} takes 'whole' images.")
    check_range(problems, "data.long_side", data.long_side, low=data.image_size)
    for key, off in _OFF.items():
        group, name = key.split(".")
        if config[group][name] != off:
            problems.append(f"{key}={config[group][name]!r} is for classification; set {off!r}.")


def inspect_split(config: ConfigDict, source: str, split: str) -> SourceFacts:
    """Count the classes and images of a split; see ``data.opening_label_maps``."""
    from lska_jax.data.opening_label_maps import inspect_label_maps

    return inspect_label_maps(source, split=split, num_classes=config.model.num_classes)
