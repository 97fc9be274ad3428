"""The label sets of ImageNet-ReaL: which classes each validation image of ImageNet shows.

Source: github.com/google-research/reassessed-imagenet: ``real.json`` is a list of 50,000 lists of
labels, in the order of the numbers in the images' file names; an empty one means that no label fits
and the image does not count.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from lska_jax.robustness.sets.label_sets import imagenet_wnids

NUM_IMAGES = 50_000
VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]+")
REAL_FILES = (
    *("real.json", "imagenet-real/real.json", "imagenet_real/real.json"),
    *("reassessed-imagenet/real.json", "imagenet/real.json"),
)


def find_real_file(data_root: Path) -> Path | None:
    """Return the file of label sets below a data folder, or None."""
    return next((f for name in REAL_FILES if (f := data_root / name).is_file()), None)


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
    except ValueError as error:
        raise ValueError(f"{file} is no readable JSON ({error}); download it again.") from error
    if not isinstance(label_sets, list) or len(label_sets) != NUM_IMAGES:
        raise ValueError(f"{file} must be a list of {NUM_IMAGES:,} lists, one for each image.")
    chosen = [label_sets[validation_number(name) - 1] for name in names]
    known = range(len(imagenet_wnids()))
    for name, labels in zip(names, chosen, strict=True):
        if not isinstance(labels, list) or not all(label in known for label in labels):
            raise ValueError(
                f"{file} gives {name} the labels {labels!r}; they must be a list of whole numbers "
                "in 0..999."
            )
    return pad_label_sets(chosen)


def validation_number(name: str) -> int:
    """Return the number, from 1, in the name of a validation image of ImageNet.

    Raises:
      ValueError: it is named otherwise.
    """
    match = VALIDATION_NAME.fullmatch(name.rpartition("/")[2])
    if match is None or not 1 <= int(match[1]) <= NUM_IMAGES:
        raise ValueError(
            f"{name!r} is no name of a validation image of ImageNet, ILSVRC2012_val_00000001.JPEG "
            "to ILSVRC2012_val_00050000.JPEG: its labels cannot be told."
        )
    return int(match[1])


def pad_label_sets(label_sets: Sequence[Sequence[int]]) -> Int[np.ndarray, "images most"]:
    """Write sets of labels as one array (N, most) int32, filled up with -1."""
    padded = np.full((len(label_sets), max(1, *map(len, label_sets))), -1, np.int32)
    for row, labels in zip(padded, label_sets, strict=True):
        row[: len(labels)] = labels
    return padded
