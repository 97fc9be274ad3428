"""Open a source of images with a class a pixel by its short name.

| Name | What it reads | Module |
|---|---|---|
| ``digit_scenes[:HEIGHTxWIDTH[:SCENES]]`` | drawn scenes, else 128x128 | ``digit_scenes`` |
| ``maps:PATH`` | ``PATH/images[/SPLIT]`` beside ``PATH/labels[/SPLIT]`` | ``label_pairs`` |
| ``ade20k:PATH`` | ADEChallengeData2016, unpacked | ``label_pairs`` |
"""

import difflib
from typing import Protocol, runtime_checkable

import numpy as np

from lska_jax.data.digit_scenes import DigitSceneMaps, inspect_digit_scenes, parse_scenes
from lska_jax.data.label_pairs import LAYOUTS, LabelPairs, inspect_pairs
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.scenes import PixelLabels
from lska_jax.data.sources import Examples, SourceFacts

KINDS = ("digit_scenes", "digit_scenes:HEIGHTxWIDTH[:SCENES]", "maps:PATH", "ade20k:PATH")
_ANOTHER_TASK = (
    "tfds:scene_parse150 holds ADE20K's full annotations under other ids, not the 150 classes of "
    "the benchmark. Fetch ADEChallengeData2016.zip from the benchmark's page, unpack it, and write "
    "ade20k:PATH."
)

_NO_BUILDER = (
    "builders of TFDS name and count their label maps each in another way. Write images and label "
    "maps as files, and maps:PATH."
)


@runtime_checkable
class LabelMapSource(Examples, Protocol):
    """Examples that are images with a class a pixel.

    Attributes:
      class_names: name of each class, in label order.
      first_id: id of the first class in the set's own files.
    """

    class_names: tuple[str, ...]
    first_id: int

    @property
    def sizes(self) -> np.ndarray:
        """Heights and widths of the images, (number of images, 2)."""

    def __getitem__(self, index: int) -> PixelLabels:
        """Return example ``index``, in [0, len); IndexError otherwise."""


def open_label_maps(
    spec: str, *, split: str, num_classes: int, max_pixels: int = MAX_PIXELS
) -> LabelMapSource:
    """Open a source by its name.

    Args:
      spec: one of the names in the module's table.
      split: ``train``, ``test`` and so on; folders take slices, ``train[:80%]``.
      num_classes: of the labels, where a folder does not name them.
      max_pixels: a label map of more counts as broken.

    Raises:
      ValueError: if the name is unknown, or the data or the split is missing or unusable.
    """
    kind, location = parse_spec(spec)
    if kind in LAYOUTS:
        return LabelPairs(
            kind, location, split=split, num_classes=num_classes, max_pixels=max_pixels
        )
    return DigitSceneMaps(split, **parse_scenes(location))


def inspect_label_maps(spec: str, *, split: str, num_classes: int) -> SourceFacts:
    """Count classes and images without reading one; see ``open_label_maps``."""
    kind, location = parse_spec(spec)
    if kind in LAYOUTS:
        return inspect_pairs(kind, location, split=split, num_classes=num_classes)
    facts = inspect_digit_scenes(location, split=split)
    return facts._replace(num_classes=len(DigitSceneMaps.class_names))


def parse_spec(spec: str) -> tuple[str, str]:
    """Return kind and location of a source's name.

    Raises:
      ValueError: it is none.
    """
    kind, colon, location = spec.partition(":")
    if kind == "tfds":
        reason = _ANOTHER_TASK if "scene_parse" in location else _NO_BUILDER
        raise ValueError(f"{spec!r} cannot be read for segmentation: {reason}")
    if (kind == "digit_scenes" and bool(colon) == bool(location)) or (kind in LAYOUTS and location):
        return kind, location
    message = f"Unknown source of label maps {spec!r}; write one of: {', '.join(KINDS)}"
    if close := difflib.get_close_matches(kind, ("digit_scenes", *LAYOUTS), n=1):
        message += f". Did you mean {close[0] + colon + location!r}?"
    raise ValueError(message)
