"""Open a source of images with objects by its short name.

| Name | What it reads | Module |
|---|---|---|
| ``digit_scenes[:HEIGHTxWIDTH]`` | drawn scenes of handwritten digits, 128x128 by default | \
``digit_scenes`` |
"""

import difflib

from lska_jax.data.digit_scenes import DigitScenes, inspect_digit_scenes, parse_scene_size
from lska_jax.data.scenes import ObjectSource
from lska_jax.data.sources import SourceFacts

_KINDS = ("digit_scenes", "digit_scenes:HEIGHTxWIDTH")


def open_objects(spec: str, *, split: str) -> ObjectSource:
    """Open a source by its name.

    Args:
      spec: one of the names in the module's table.
      split: ``train``, ``test`` and so on.

    Raises:
      ValueError: if the name is unknown, or the data or the split is missing or unusable.
    """
    _, location = _parse(spec)
    return DigitScenes(split, size=parse_scene_size(location))


def inspect_objects(spec: str, *, split: str) -> SourceFacts:
    """Count classes and images without reading an image; arguments are those of ``open_objects``.

    Raises:
      ValueError: as ``open_objects``.
    """
    _, location = _parse(spec)
    parse_scene_size(location)
    return inspect_digit_scenes(split)


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, location = spec.partition(":")
    if kind == "digit_scenes" and bool(colon) == bool(location):
        return kind, location
    message = f"Unknown source of objects {spec!r}; write one of: {', '.join(_KINDS)}"
    if close := difflib.get_close_matches(kind, ("digit_scenes",), n=1):
        message += f". Did you mean {close[0] + colon + location!r}?"
    raise ValueError(message)
