"""The check of what detection reads of a config, and of its data; without jax.

Its own keys are in the group ``config.detection``:

| Key | Default | |
|---|---|---|
| ``canvas`` | (800, 1344) | height and width of padded wide images; upright ones have it reversed |
| ``max_objects`` | 100 | rows for the objects of an image; a split with more is refused |
| ``jitter`` | (1.0, 1.0) | in training, range of a factor on the bounds of the resize |

The bounds of a resize are ``data.image_size`` for the shorter side and ``data.long_side`` for the
longer.
"""

from typing import Any

from ml_collections import ConfigDict

from lska_jax.data.sources import SourceFacts
from lska_jax.running.value_checks import check_entries, check_range, collect
from lska_jax.tasks.segmentation_check import check_dense

DEFAULTS: dict[str, Any] = {
    "canvas": (800, 1344),
    "max_objects": 100,
    "jitter": (1.0, 1.0),
}
# Heads that find masks too.
_WITH_MASKS = ("mask_rcnn",)
_BYTE = 8


def detection_section(**fields: Any) -> ConfigDict:
    """Return a run's ``config.detection``: the defaults, and what replaces them."""
    return ConfigDict({**DEFAULTS, **fields})


def check_config(config: ConfigDict, problems: list[str]) -> None:
    """Add a sentence for every value that detection cannot work with."""
    check_dense(config, problems, task="detection")
    own = config.detection
    count = len(problems)
    check_entries(problems, "detection.canvas", own.canvas, is_whole=True, low=1)
    if len(problems) == count and not _is_canvas(own.canvas):
        problems.append(
            f"detection.canvas={own.canvas} must be (height, width), both multiples of {_BYTE}."
        )
    check_range(problems, "detection.max_objects", own.max_objects, low=1)
    check_entries(problems, "detection.jitter", own.jitter, above=0)
    if len(own.jitter) != 2 or own.jitter[0] > own.jitter[-1]:
        problems.append(f"detection.jitter={own.jitter} must be (low, high) with low <= high.")
    if len(problems) == count and _is_too_small(config):
        problems.append(
            f"detection.canvas={own.canvas} is smaller than images of data.image_size="
            f"{config.data.image_size} by data.long_side={config.data.long_side}."
        )
    if config.training.class_weights:
        problems.append(
            f"training.class_weights={config.training.class_weights!r}: detectors weigh no "
            "classes; leave it empty."
        )
    from lska_jax.data.opening_objects import inspect_objects

    if not str(config.data.source).startswith("coco:"):
        # Whether files are there is seen when a split is opened.
        collect(problems, lambda: inspect_objects(config.data.source, split="train"))


def inspect_split(config: ConfigDict, source: str, split: str) -> SourceFacts:
    """Count the classes and images of a split; see ``data.opening_objects``."""
    from lska_jax.data.opening_objects import inspect_objects

    return inspect_objects(source, split=split, use_masks=uses_masks(config))


def uses_masks(config: ConfigDict) -> bool:
    """Tell whether a checked config's detector is trained on masks."""
    return config.model.head.name in _WITH_MASKS


def _is_canvas(canvas: Any) -> bool:
    return len(canvas) == 2 and not any(side % _BYTE for side in canvas)


def _is_too_small(config: ConfigDict) -> bool:
    sides = config.data.image_size, config.data.long_side
    return any(
        side < needed for side, needed in zip(sorted(config.detection.canvas), sides, strict=True)
    )
