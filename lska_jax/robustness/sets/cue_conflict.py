"""Stimuli whose shape and texture disagree, and the classes of a model that they ask for.

Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture", arXiv 1811.12231
(github.com/rgeirhos/texture-vs-shape): files are named SHAPEn-TEXTUREm.png.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from lska_jax.data.sources import Record, Source, check_index
from lska_jax.data.tfds_source import TfdsSource
from lska_jax.robustness.cells import Cell, Outcomes, Score
from lska_jax.robustness.scores.bootstrap import bootstrap_shape_bias
from lska_jax.robustness.scores.scorer import (
    BOOTSTRAP_SEED,
    ClassSubset,
    ScoredCell,
    Scorer,
    with_interval,
)
from lska_jax.robustness.scores.shape_bias import ShapeBias, shape_bias_per_class
from lska_jax.robustness.sets.class_folders import ClassFolders
from lska_jax.robustness.sets.label_sets import imagenet_wnids, shape_classes
from lska_jax.robustness.sets.layouts import named_folders
from lska_jax.robustness.sets.prepared import read_integers
from lska_jax.robustness.sets.record import FoundFiles, ImageSet, Opened, OwnClasses, TfdsCopy
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class CueConflictScorer(Scorer):
    """Shape bias: how often decisions follow shape where they follow shape or texture."""

    headlines: tuple[str, ...] = ("shape_bias",)

    def score_cell(
        self,
        cell: Cell,
        outcomes: Outcomes,
        *,
        labels: np.ndarray,
        extra: Mapping[str, np.ndarray],
        shapes: Sequence[str],
        subsets: Sequence[ClassSubset],
    ) -> ScoredCell:
        """Score all stimuli and those of each shape; see ``Scorer``."""
        # Logits that are not finite decide for one class more, which follows neither cue.
        undecided = len(shapes)
        counts = shape_bias_per_class(
            np.where(outcomes.group < 0, undecided, outcomes.group),
            labels,
            extra["texture"],
            num_classes=undecided + 1,
        )
        whole = ShapeBias(*(sum(getattr(of, name) for of in counts) for name in ShapeBias._fields))
        if not whole.counted:
            raise ValueError("No stimulus shows the shape of one class in the texture of another.")
        named = {"": whole, **{f"/{name}": of for name, of in zip(shapes, counts, strict=False)}}
        scores: dict[str, Score] = {}
        for suffix, of in named.items():
            if of.counted:
                scores |= {f"{score}{suffix}": found for score, found in bias_scores(of).items()}
        return ScoredCell(scores, {})


def bias_scores(of: ShapeBias) -> dict[str, Score]:
    """Return "shape_bias" and "decided" of counted stimuli, with their intervals."""
    intervals = bootstrap_shape_bias(of, seed=BOOTSTRAP_SEED)
    return {
        "shape_bias": with_interval(of.bias, intervals.bias),
        "decided": with_interval(of.decided_fraction, intervals.decided_fraction),
    }


def shape_groups(class_names: Sequence[str]) -> ShapeGroups:
    """Find the shape classes among a model's classes.

    A model of ImageNet's thousand classes, named by WordNet id or by word, knows all 16 by Geirhos'
    lists. Any other knows those that one of its classes is called after, in the singular or the
    plural, and those that Geirhos' lists have one of its classes for, if it is named as ImageNet's:
    CIFAR-10 has airplane, bird, boat (ship), car (automobile), cat, dog and truck, COCO all 16.

    Args:
      class_names: name of each class, in label order.

    Returns:
      The groups; none if no name matches.
    """
    imagenet = imagenet_wnids(), imagenet_names()
    if tuple(class_names) in imagenet:
        return ShapeGroups(tuple(shape_classes()), tuple(shape_classes().values()))
    words = [name.lower().replace("_", " ").strip() for name in class_names]
    found = {}
    for shape, classes in shape_classes().items():
        meant = {shape, *_SYNONYMS.get(shape, ())}
        meant |= {f"{word}s" for word in meant}
        meant |= {names[of].lower() for names in imagenet for of in classes}
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
    """Some examples of another source, relabelled.

    Attributes:
      labels: (N,) the new ones.
      num_whole: examples of the other source.
    """

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
        self.labels = labels
        self.num_whole = len(source)

    def __len__(self) -> int:
        """Return the number of chosen examples."""
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        """Return chosen example ``index`` with its new label."""
        check_index(index, len(self), self.name)
        record = self._source[int(self._chosen[index])]
        return Record(record.image, int(self.labels[index]))

    def path(self, index: int) -> str:
        """Return what the source calls it."""
        check_index(index, len(self), self.name)
        return self._source.path(int(self._chosen[index]))


def open_stimuli(found: FoundFiles) -> Opened:
    """Open stimuli, whose names say shape and texture."""
    index = {name: number for number, name in enumerate(shape_classes())}
    pairs = []
    for name in found.names:
        folder, _, file = name.rpartition("/")
        shape, texture = parse_stimulus(file)
        if shape != folder.partition("/")[0]:
            raise ValueError(
                f"{found.place.name}/{name}: the folder says {folder!r}, the file's name "
                f"{shape!r}; stimuli lie in the folder of their shape."
            )
        pairs.append((index[shape], index[texture]))
    shape_labels, textures = np.array(pairs, np.int32).T
    source = found._replace(labels=shape_labels).source()
    return choose_shapes(source, shape_labels, textures, found.shapes)


def _open_prepared(source: TfdsSource, shapes: Sequence[str] | None) -> Opened:
    shape = np.array(read_integers(source, "shape_label"), np.int32)[:, 0]
    texture = np.array(read_integers(source, "texture_label"), np.int32)[:, 0]
    return choose_shapes(source, shape, texture, shapes)


def _names() -> tuple[str, ...]:
    return tuple(shape_classes())


CUE_CONFLICT = ImageSet(
    name="cue_conflict",
    title="Cue conflict",
    label_space="16 shape classes",
    citation="Geirhos et al., ImageNet-trained CNNs are biased towards texture; increasing "
    "shape bias improves accuracy and robustness, ICLR 2019, arXiv 1811.12231",
    license="CC BY 4.0",  # DATASET_LICENSE of that page
    where="https://github.com/rgeirhos/texture-vs-shape",
    download_gb=161_433_700 / 1e9,  # the repository as one archive
    num_images=1_280,  # README of that page
    stored_size=224,
    layout="style-transfer-preprocessed-512/SHAPE/SHAPEn-TEXTUREm.png",
    note="80 of the 1,280 have one class for both and count for no shape bias",
    places=named_folders(
        *("cue-conflict", "cue_conflict_subset", "style-transfer-preprocessed-512"),
        *("texture-vs-shape/stimuli/style-transfer-preprocessed-512",),
        *("texture-vs-shape-master/stimuli/style-transfer-preprocessed-512",),
    ),
    classes=ClassFolders(
        is_one=lambda name: name in shape_classes(),
        labels=lambda: {name: label for label, name in enumerate(shape_classes())},
        class_names=_names,
    ),
    tfds=TfdsCopy(
        name="geirhos_conflict_stimuli",
        trap="none known: the same files",
        class_names=_names,
        open=_open_prepared,
    ),
    open_files=open_stimuli,
    scorer=CueConflictScorer(),
    has_shapes=True,
    own=OwnClasses("cue_conflict", CueConflictScorer()),
)
