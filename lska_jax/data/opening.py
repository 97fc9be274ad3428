"""Open a source by its short name.

| Name | What it reads | Module |
|---|---|---|
| ``digits`` | the 1,797 handwritten digits that come with scikit-learn | ``digits`` |
| ``folder:PATH`` | class folders, ``PATH/SPLIT/CLASS/*.jpg`` or ``PATH/CLASS/*.jpg`` | ``folder`` |
| ``folder:PATH.tar`` | the same layout inside an uncompressed tar | ``folder`` |
| ``tfds:NAME[/CONFIG][:VERSION]`` | a TFDS set prepared as ArrayRecord | ``tfds_source`` |
"""

import difflib
from pathlib import Path

from lska_jax.data.digits import DigitsSource, inspect_digits
from lska_jax.data.folder import FolderSource
from lska_jax.data.image_tree import open_tree
from lska_jax.data.sources import Source, SourceFacts

_KINDS = ("digits", "folder:PATH", "folder:PATH.tar", "tfds:NAME[/CONFIG][:VERSION]")


def open_source(spec: str, *, split: str, data_dir: str | None = None) -> Source:
    """Open a source by its name.

    Args:
      spec: one of the names in the module's table.
      split: ``train``, ``test`` and so on; folders and TFDS sets take slices, ``train[:80%]``.
      data_dir: where TFDS sets are prepared; ``None`` is TFDS's own default. Others ignore it.

    Returns:
      The opened source.

    Raises:
      ValueError: if the name is unknown, or the data or the split is missing, empty or unusable.
    """
    kind, location = _parse(spec)
    if kind == "digits":
        return DigitsSource(split)
    if kind == "folder":
        return open_folder(location, split=split)
    from lska_jax.data.tfds_source import TfdsSource

    return TfdsSource(location, split=split, data_dir=data_dir)


def inspect_source(spec: str, *, split: str, data_dir: str | None = None) -> SourceFacts:
    """Count classes and examples without importing TFDS or scikit-learn.

    Args:
      spec: as for ``open_source``.
      split: as for ``open_source``.
      data_dir: as for ``open_source``.

    Returns:
      The number of classes and of examples.

    Raises:
      ValueError: as ``open_source``, for everything that shows without reading an example.
    """
    kind, location = _parse(spec)
    if kind == "digits":
        return inspect_digits(split)
    if kind == "folder":
        folder = open_folder(location, split=split)
        return SourceFacts(len(folder.class_names), len(folder))
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


def _parse(spec: str) -> tuple[str, str]:
    kind, colon, location = spec.partition(":")
    if spec == "digits":
        return kind, ""
    if colon and location and kind in ("folder", "tfds"):
        return kind, location
    message = f"Unknown data source {spec!r}; write one of: {', '.join(_KINDS)}"
    if not colon and kind in ("folder", "tfds"):
        message += f". {kind!r} needs a colon and what to open after it"
    elif "/" in kind or spec.endswith(".tar"):
        message += f". Did you mean 'folder:{spec}'?"
    elif close := difflib.get_close_matches(kind, ("digits", "folder", "tfds"), n=1):
        message += f". Did you mean {close[0] + colon + location!r}?"
    raise ValueError(message)
