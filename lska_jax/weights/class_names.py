"""Names of classes: ImageNet's thousand, or a file of one name a line."""

import functools
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

IMAGENET_CLASSES = 1000


@functools.cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1K in label order."""
    return tuple(wnid for wnid, _ in _imagenet_table())


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """Return the names of ImageNet-1K's classes in label order, all different.

    They are the first lemma of each synset in WordNet 3.0; of the two cranes and the two maillots
    the second meaning of the pair carries another word, as in torchvision's list.
    """
    return tuple(name for _, name in _imagenet_table())


def readable_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return class names, with ImageNet's WordNet ids replaced by their words."""
    words = dict(_imagenet_table())
    if all(name in words for name in class_names):
        return tuple(words[name] for name in class_names)
    return tuple(class_names)


def read_names(path: str | Path) -> tuple[str, ...]:
    """Read class names in label order from a file: one a line, or a JSON list of strings.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is neither, or a name is empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} with class names.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no readable list of class names ({error}).") from error
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError(f"{path} must hold one class name a line, or a JSON list of strings.")
    return tuple(name.strip() for name in names)


def _imagenet_table() -> list[tuple[str, str]]:
    file = resources.files("lska_jax.weights").joinpath("imagenet_classes.tsv")
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(wnid, name) for wnid, _, name in (line.partition("\t") for line in lines)]
