"""Open a source by its short name.

| Name | What it reads | Module |
|---|---|---|
| ``digits`` | the 1,797 handwritten digits that come with scikit-learn | ``digits`` |
| ``drawings`` | drawings of CIFAR-10's ten classes, made as they are read | ``drawings`` |
| ``folder:PATH`` | class folders, ``PATH/SPLIT/CLASS/*.jpg`` or ``PATH/CLASS/*.jpg`` | ``folder`` |
| ``folder:PATH.tar`` | the same layout inside an uncompressed tar | ``folder`` |
| ``csv:PATH`` | the images that a CSV file lists, with a label each | ``csv_source`` |
| ``tfds:NAME[/CONFIG][:VERSION]`` | a TFDS set prepared as ArrayRecord | ``tfds_source`` |
"""

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from lska_jax.data.csv_source import LABEL_SEPARATOR, CsvSource
from lska_jax.data.digits import DigitsSource, inspect_digits
from lska_jax.data.drawings import DrawingsSource, inspect_drawings
from lska_jax.data.folder import FolderSource
from lska_jax.data.image_tree import open_tree
from lska_jax.data.sources import Source, SourceFacts

_KINDS = (
    *("digits", "drawings", "folder:PATH", "folder:PATH.tar", "csv:PATH"),
    "tfds:NAME[/CONFIG][:VERSION]",
)
# Kinds that need no place: they come with the package, or with what it needs.
_EMBEDDED: dict[str, tuple[Callable[[str], Source], Callable[[str], SourceFacts]]] = {
    "digits": (DigitsSource, inspect_digits),
    "drawings": (DrawingsSource, inspect_drawings),
}
# Kinds that have a place behind a colon.
_PLACED = ("folder", "csv", "tfds")
# What may name a TFDS set.
_TFDS_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\w.*]+)?", re.ASCII)


def open_source(
    spec: str, *, split: str, data_dir: str | None = None, is_multi_label: bool = False
) -> Source:
    """Open a source by its name.

    Args:
      spec: one of the names in the module's table.
      split: ``train``, ``test`` and so on; folders and TFDS sets take slices, ``train[:80%]``.
      data_dir: where TFDS sets are prepared; ``None`` is TFDS's own default. Others ignore it.
      is_multi_label: whether an image may have any number of labels, which ``csv:`` alone knows.

    Returns:
      The opened source.

    Raises:
      ValueError: if the name is unknown, or the data or the split is missing, empty or unusable.
    """
    kind, location = _parse(spec)
    if kind == "csv":
        return CsvSource(location, split=split, is_multi_label=is_multi_label)
    if is_multi_label:
        raise ValueError(
            f"{spec} has one label an image. Several are read from a CSV file, csv:PATH, with "
            f"{LABEL_SEPARATOR!r} between the labels of an image."
        )
    if kind in _EMBEDDED:
        return _EMBEDDED[kind][0](split)
    if kind == "folder":
        return open_folder(location, split=split)
    from lska_jax.data.tfds_source import TfdsSource

    return TfdsSource(location, split=split, data_dir=data_dir)


def inspect_source(
    spec: str, *, split: str, data_dir: str | None = None, is_multi_label: bool = False
) -> SourceFacts:
    """Count classes and examples without importing TFDS or scikit-learn.

    Args:
      spec: as for ``open_source``.
      split: as for ``open_source``.
      data_dir: as for ``open_source``.
      is_multi_label: as for ``open_source``.

    Returns:
      The number of classes and of examples.

    Raises:
      ValueError: as ``open_source``, for everything that shows without reading an example.
    """
    kind, location = _parse(spec)
    if kind in _EMBEDDED and not is_multi_label:
        return _EMBEDDED[kind][1](split)
    if kind != "tfds" or is_multi_label:
        source = open_source(spec, split=split, data_dir=data_dir, is_multi_label=is_multi_label)
        return SourceFacts(len(source.class_names), len(source))
    from lska_jax.data.tfds_source import inspect_tfds

    return inspect_tfds(location, split=split, data_dir=data_dir)


def open_folder(location: str, *, split: str) -> Source:
    """Open class folders, or an uncompressed tar of them.

    Args:
      location: a folder, or a file that is read as a tar; ``~`` is expanded.
      split: the split, or slices of it; ``folder`` says how it is found.

    Raises:
      ValueError: if the location or the split does not exist, or holds no usable images.
    """
    return FolderSource(open_tree(Path(location).expanduser()), split=split)


def source_of(place: str) -> str:
    """Return the source that a person means by a place.

    Args:
      place: a folder, a tar or CSV file, the name of a TFDS set, or a source's own name.

    Raises:
      ValueError: there is nothing, and it is no name; or a file of another kind.
    """
    if place in _EMBEDDED or place.partition(":")[0] in _PLACED:
        return place
    path = Path(place).expanduser()
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        return f"csv:{place}"
    if path.exists():
        return f"folder:{place}"
    if _TFDS_NAME.fullmatch(place):
        return f"tfds:{place}"
    raise ValueError(
        f"There is no {place}. Give a folder of class folders, an uncompressed .tar of them, a "
        ".csv of path,label, or the name of a prepared TFDS set."
    )


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, location = spec.partition(":")
    if spec in _EMBEDDED:
        return kind, ""
    if colon and location and kind in _PLACED:
        return kind, location
    message = f"Unknown data source {spec!r}; write one of: {', '.join(_KINDS)}"
    if not colon and kind in _PLACED:
        message += f". {kind!r} needs a colon and what to open after it"
    elif "/" in kind or spec.endswith(".tar"):
        message += f". Did you mean 'folder:{spec}'?"
    elif close := difflib.get_close_matches(kind, (*_EMBEDDED, *_PLACED), n=1):
        message += f". Did you mean {close[0] + colon + location!r}?"
    raise ValueError(message)
