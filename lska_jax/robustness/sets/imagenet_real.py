"""ImageNet-ReaL: which classes each validation image of ImageNet shows.

Source: github.com/google-research/reassessed-imagenet: ``real.json`` is a list of 50,000 lists of
labels, in the order of the numbers in the images' file names; an empty one means that no label fits
and the image does not count.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from lska_jax.data.tfds_source import TfdsSource
from lska_jax.robustness.cells import Cell, Outcomes, Score
from lska_jax.robustness.scores.scorer import ClassSubset, ScoredCell, Scorer, mean_score
from lska_jax.robustness.sets.class_folders import (
    NUM_VALIDATION_IMAGES,
    validation_images,
    validation_number,
)
from lska_jax.robustness.sets.imagenet import ARCHIVE_BYTES, VALIDATION_LAYOUT
from lska_jax.robustness.sets.label_sets import imagenet_wnids
from lska_jax.robustness.sets.prepared import read_integers
from lska_jax.robustness.sets.record import FoundFiles, ImageSet, MissingSet, Opened, TfdsCopy


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealScorer(Scorer):
    """ReaL accuracy: the share of images whose prediction is among their labels.

    Images whose set is empty, on which the raters found no label that fits, are in neither part of
    the fraction. Source: Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159.
    """

    headlines: tuple[str, ...] = ("real",)

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
        """Score one cell; see ``Scorer``."""
        predictions, real_labels = outcomes.prediction[:, 0], extra["real_labels"]
        has_labels = np.any(real_labels >= 0, axis=1)
        if not has_labels.any():
            return ScoredCell({"real": Score(None)}, {})
        hits = np.any(real_labels == predictions[:, None], axis=1) & (predictions >= 0)
        return ScoredCell({"real": mean_score(hits[has_labels])}, {})


def open_with_real_labels(found: FoundFiles) -> Opened:
    """Open validation images with their label sets."""
    file = IMAGENET_REAL.find_beside(found.data_root)
    if file is None:
        raise MissingSet(f"ImageNet-ReaL: there is no real.json in {found.data_root}.")
    return found.source(), {"real_labels": read_real_labels(file, found.names)}


def read_real_labels(file: Path, names: Sequence[str]) -> Int[np.ndarray, "images most"]:
    """Read the label sets of some validation images.

    Args:
      file: ``real.json``.
      names: their file names, with or without folders.

    Returns:
      (N, most) int32, filled up with -1; all -1 where no label fits.

    Raises:
      ValueError: the file is no such list, a label is not within 0..999, or a name is no validation
        image's.
    """
    try:
        label_sets: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no readable JSON ({error}); download it again.") from error
    if not isinstance(label_sets, list) or len(label_sets) != NUM_VALIDATION_IMAGES:
        raise ValueError(
            f"{file} must be a list of {NUM_VALIDATION_IMAGES:,} lists, one for each image."
        )
    chosen = [label_sets[validation_number(name) - 1] for name in names]
    known = range(len(imagenet_wnids()))
    for name, labels in zip(names, chosen, strict=True):
        if not isinstance(labels, list) or not all(label in known for label in labels):
            raise ValueError(
                f"{file} gives {name} the labels {labels!r}; they must be a list of whole numbers "
                "in 0..999."
            )
    return pad_label_sets(chosen)


def pad_label_sets(label_sets: Sequence[Sequence[int]]) -> Int[np.ndarray, "images most"]:
    """Write sets of labels as one array (N, most) int32, filled up with -1."""
    padded = np.full((len(label_sets), max(1, *map(len, label_sets))), -1, np.int32)
    for row, labels in zip(padded, label_sets, strict=True):
        row[: len(labels)] = labels
    return padded


def _open_prepared(source: TfdsSource, shapes: Sequence[str] | None) -> Opened:
    return source, {"real_labels": pad_label_sets(read_integers(source, "real_label"))}


IMAGENET_REAL = ImageSet(
    name="imagenet_real",
    title="ImageNet-ReaL",
    label_space="sets of the 1000 classes",
    citation="Beyer, Henaff, Kolesnikov, Zhai and van den Oord, Are we done with "
    "ImageNet?, 2020, arXiv 2006.07159",
    where="https://github.com/google-research/reassessed-imagenet",
    download_gb=(388_478 + ARCHIVE_BYTES) / 1e9,
    num_images=NUM_VALIDATION_IMAGES,
    layout="real.json beside the validation images of ImageNet, under their own names",
    note="images without a label are not counted; the size includes ImageNet's images",
    places=VALIDATION_LAYOUT,
    classes=validation_images(),
    beside=(
        *("real.json", "imagenet-real/real.json", "imagenet_real/real.json"),
        *("reassessed-imagenet/real.json", "imagenet/real.json"),
    ),
    tfds=TfdsCopy(
        name="imagenet2012_real",
        split="validation",
        trap="none known: the same images and label sets",
        open=_open_prepared,
    ),
    open_files=open_with_real_labels,
    scorer=RealScorer(),
)
