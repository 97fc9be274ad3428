"""Open a source of images with objects by its short name.

| Name | What it reads | Module |
|---|---|---|
| ``digit_scenes[:HEIGHTxWIDTH[:SCENES]]`` | drawn scenes, else 128x128 | ``digit_scenes`` |
| ``coco:PATH`` | instances files beside image folders | ``coco`` |
"""

import difflib

from lska_jax.data.coco import CocoSource, inspect_coco
from lska_jax.data.digit_scenes import DigitScenes, inspect_digit_scenes, parse_scenes
from lska_jax.data.scenes import ObjectSource
from lska_jax.data.sources import SourceFacts

_KINDS = ("digit_scenes", "digit_scenes:HEIGHTxWIDTH[:SCENES]", "coco:PATH")


def open_objects(
    spec: str, *, split: str, use_masks: bool = False, is_for_training: bool = False
) -> ObjectSource:
    """Open a source by its name.

    Args:
      spec: one of the names in the module's table.
      split: ``train``, ``test`` and so on; COCO sets take slices, ``train[:80%]``.
      use_masks: whether masks are read; digit scenes have them in any case.
      is_for_training: whether images that the reference does not train on are left out; COCO only.

    Raises:
      ValueError: if the name is unknown, or the data or the split is missing or unusable.
    """
    kind, location = _parse(spec)
    if kind == "coco":
        return CocoSource(
            location, split=split, use_masks=use_masks, is_for_training=is_for_training
        )
    return DigitScenes(split, **parse_scenes(location))


def inspect_objects(spec: str, *, split: str, use_masks: bool = False) -> SourceFacts:
    """Count classes and images without reading an image; arguments are those of ``open_objects``.

    Raises:
      ValueError: as ``open_objects``, for what shows without looking for images.
    """
    kind, location = _parse(spec)
    if kind == "coco":
        return inspect_coco(location, split=split, use_masks=use_masks)
    return inspect_digit_scenes(location, split=split)


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, location = spec.partition(":")
    if kind == "digit_scenes" and bool(colon) == bool(location) or kind == "coco" and location:
        return kind, location
    if kind == "tfds":
        raise ValueError(
            f"{spec!r} cannot be read for detection: builders of TFDS have no masks and no ids of "
            "the set's own, which COCO's numbers and results files are about. Write coco:PATH."
        )
    message = f"Unknown source of objects {spec!r}; write one of: {', '.join(_KINDS)}"
    if close := difflib.get_close_matches(kind, ("digit_scenes", "coco"), n=1):
        message += f". Did you mean {close[0] + colon + location!r}?"
    raise ValueError(message)
