"""Names of classes: ImageNet's thousand, a file of one name a line, or those in a checkpoint."""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

IMAGENET_CLASSES = 1000


class StatedClasses(NamedTuple):
    """What a checkpoint says of its classes.

    Attributes:
      names: in label order, or None.
      colors: red, green and blue from 0 to 255 of each, or None.
    """

    names: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None


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


def read_stated_classes(content: Any) -> StatedClasses:
    """Return the classes that a checkpoint of mmdetection or mmsegmentation keeps in its ``meta``.

    Args:
      content: of the file. What is no list of names, or no colours of as many, is not taken.
    """
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return StatedClasses()
    names: Any = meta.get("CLASSES")
    if not _is_list(names) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        return StatedClasses()
    palette: Any = meta.get("PALETTE")
    is_palette = _is_list(palette) and len(palette) == len(names) and all(map(_is_color, palette))
    colors = tuple((red, green, blue) for red, green, blue in palette) if is_palette else None
    return StatedClasses(tuple(name.strip() for name in names), colors)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_color(value: Any) -> bool:
    return (
        _is_list(value)
        and len(value) == 3
        and all(type(level) is int and 0 <= level <= 255 for level in value)
    )


def _imagenet_table() -> list[tuple[str, str]]:
    file = resources.files("lska_jax.weights").joinpath("imagenet_classes.tsv")
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(wnid, name) for wnid, _, name in (line.partition("\t") for line in lines)]
