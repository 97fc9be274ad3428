"""Stimuli whose shape and texture disagree, and the classes of a model that they ask for.

Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture", arXiv 1811.12231
(github.com/rgeirhos/texture-vs-shape): files are named SHAPEn-TEXTUREm.png.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lska_jax.data.sources import Record, Source, check_index
from lska_jax.robustness.sets.label_sets import imagenet_wnids, shape_classes
from lska_jax.weights.class_names import imagenet_names

_STIMULUS = re.compile(r"(?P<shape>[a-z]+)\d+-(?P<texture>[a-z]+)\d+\.\w+")
# Other words for the 16 classes, as data sets write them: the CIFAR sets, STL-10, COCO.
_SYNONYMS = {
    "airplane": ("aeroplane", "plane"),
    "bicycle": ("bike",),
    "boat": ("ship",),
    "car": ("automobile",),
    "truck": ("lorry", "pickup truck"),
}


class ShapeGroups(NamedTuple):
    """The shape classes that a model knows.

    Attributes:
      names: their names, alphabetical.
      classes: for each, the model's classes that stand for it, ascending.
    """

    names: tuple[str, ...]
    classes: tuple[Int[np.ndarray, " classes"], ...]


def shape_groups(class_names: Sequence[str]) -> ShapeGroups:
    """Find the shape classes among a model's classes.

    A model of ImageNet's thousand classes, named by WordNet id or by word, knows all 16 by Geirhos'
    lists. Any other knows those that one of its classes is called after: CIFAR-10 has airplane,
    bird, boat (ship), car (automobile), cat, dog and truck.

    Args:
      class_names: name of each class, in label order.

    Returns:
      The groups; none if no name matches.
    """
    if tuple(class_names) in (imagenet_wnids(), imagenet_names()):
        return ShapeGroups(tuple(shape_classes()), tuple(shape_classes().values()))
    words = [name.lower().replace("_", " ").strip() for name in class_names]
    found = {}
    for shape in shape_classes():
        meant = (shape, *_SYNONYMS.get(shape, ()))
        if matching := [index for index, word in enumerate(words) if word in meant]:
            found[shape] = np.array(matching, np.int64)
    return ShapeGroups(tuple(found), tuple(found.values()))


def parse_stimulus(file_name: str) -> tuple[str, str]:
    """Return the shape and the texture class that a stimulus is named after.

    Args:
      file_name: e.g. "airplane1-bicycle2.png".

    Raises:
      ValueError: it is named otherwise, or a class is none of the 16.
    """
    match = _STIMULUS.fullmatch(file_name)
    if match is None:
        raise ValueError(
            f"{file_name!r} is no name of a cue-conflict stimulus; they are called SHAPEn-TEXTUREm,"
            " e.g. airplane1-bicycle2.png."
        )
    for role in ("shape", "texture"):
        if match[role] not in shape_classes():
            raise ValueError(
                f"{file_name!r} names the {role} {match[role]!r}, which is none of the 16 classes: "
                f"{', '.join(shape_classes())}."
            )
    return match["shape"], match["texture"]


def choose_shapes(
    source: Source, shape: np.ndarray, texture: np.ndarray, shapes: Sequence[str] | None
) -> tuple[Source, Mapping[str, np.ndarray]]:
    """Keep the stimuli whose shape and texture are both among some classes, renumbered.

    Args:
      source: stimuli of all 16 classes.
      shape: (N,) class of each.
      texture: (N,) class of each.
      shapes: the classes to keep, in their new order; None: all 16, as they are.

    Raises:
      ValueError: one is none of the 16, or no stimulus is left.
    """
    if shapes is None:
        return source, {"texture": texture}
    names = tuple(shape_classes())
    if unknown := [name for name in shapes if name not in names]:
        raise ValueError(
            f"There is no shape class {', '.join(map(repr, unknown))}; the 16 are: "
            f"{', '.join(names)}."
        )
    renumbered = np.full(len(names), -1, np.int32)
    renumbered[[names.index(name) for name in shapes]] = np.arange(len(shapes))
    shape, texture = renumbered[shape], renumbered[texture]
    kept = np.flatnonzero((shape >= 0) & (texture >= 0))
    if not len(kept):
        raise ValueError(
            f"{source.name} has no stimulus whose shape and texture are both among "
            f"{', '.join(shapes) or 'no classes'}."
        )
    return ChosenSource(source, kept, shape[kept], tuple(shapes)), {"texture": texture[kept]}


class ChosenSource:
    """Some examples of another source, relabelled."""

    def __init__(
        self, source: Source, chosen: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
    ) -> None:
        """Keep the choice.

        Args:
          source: the examples.
          chosen: (N,) positions in it.
          labels: (N,) new labels.
          class_names: their names, in label order.
        """
        self.name = source.name
        self.class_names = tuple(class_names)
        self._source = source
        self._chosen = chosen
        self._labels = labels

    def __len__(self) -> int:
        """Return the number of chosen examples."""
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        """Return chosen example ``index`` with its new label."""
        check_index(index, len(self), self.name)
        record = self._source[int(self._chosen[index])]
        return Record(record.image, int(self._labels[index]))

    def path(self, index: int) -> str:
        """Return what the source calls it."""
        check_index(index, len(self), self.name)
        return self._source.path(int(self._chosen[index]))
