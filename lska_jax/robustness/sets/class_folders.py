"""How the class folders of a set are named, and which label each stands for."""

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from lska_jax.robustness.sets.label_sets import imagenet_wnids, subset_classes

_WNID = re.compile(r"n\d{8}")
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.[A-Za-z]+")
NUM_VALIDATION_IMAGES = 50_000


class LooseImages(NamedTuple):
    """Images that may lie in a set's folder without class folders.

    Attributes:
      is_one: tells whether a file's name is that of such an image.
      label_of: returns the label of a name; raises ValueError where there is none.
    """

    is_one: Callable[[str], bool]
    label_of: Callable[[str], int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """The class folders of a set.

    Attributes:
      is_one: tells whether a folder's name looks like a class of the set.
      labels: returns the label of each class folder that the set has.
      class_names: returns the names that labels stand for, in label order.
      loose: images that may lie there without class folders; None: there are none.
    """

    is_one: Callable[[str], bool]
    labels: Callable[[], Mapping[str, int]]
    class_names: Callable[[], tuple[str, ...]] = imagenet_wnids
    loose: LooseImages | None = None


def wnid_folders(subset: str | None = None) -> ClassFolders:
    """Return folders named by WordNet id, of all of ImageNet's classes or of a subset.

    Args:
      subset: a name that ``label_sets.subset_classes`` knows.
    """
    return ClassFolders(is_one=is_wnid, labels=functools.partial(_wnid_labels, subset))


def validation_images() -> ClassFolders:
    """Return folders named by WordNet id, or ImageNet's validation images without folders."""
    loose = LooseImages(is_validation_name, _validation_label)
    return dataclasses.replace(wnid_folders(), loose=loose)


def is_wnid(name: str) -> bool:
    """Tell whether a name looks like a WordNet id."""
    return _WNID.fullmatch(name) is not None


def is_validation_name(name: str) -> bool:
    """Tell whether a file is named like one of ImageNet's validation images."""
    return _VALIDATION_NAME.fullmatch(name) is not None


def validation_number(name: str) -> int:
    """Return the number, from 1, in the name of a validation image of ImageNet.

    Raises:
      ValueError: the image has another name.
    """
    match = _VALIDATION_NAME.fullmatch(name.rpartition("/")[2])
    if match is None or not 1 <= int(match[1]) <= NUM_VALIDATION_IMAGES:
        raise ValueError(
            f"{name!r} is not the name of a validation image of ImageNet, "
            "ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG, so its labels are not "
            "known. Restore the original names."
        )
    return int(match[1])


def _wnid_labels(subset: str | None) -> Mapping[str, int]:
    wnids = imagenet_wnids()
    labels = range(len(wnids)) if subset is None else subset_classes(subset).tolist()
    return {wnids[label]: label for label in labels}


def _validation_label(name: str) -> int:
    return _wnid_labels(None)[_validation_wnids()[validation_number(name) - 1]]


@functools.cache
def _validation_wnids() -> tuple[str, ...]:
    """Return the class of each of the 50,000 validation images, in the order of their numbers.

    The list is TFDS's. The challenge's own kit numbers classes differently and is not read.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or spec.origin is None:
        raise ValueError(
            "Labels of loose validation images come from tensorflow-datasets, which is not "
            "installed; install it, or sort the images into class folders."
        )
    file = Path(spec.origin).parent / "datasets/imagenet2012/validation_labels.txt"
    return tuple(file.read_text(encoding="utf-8").split())
