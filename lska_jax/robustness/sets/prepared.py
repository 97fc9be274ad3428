"""Sets of the benchmark that TFDS prepared, relabelled where their features are special."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lska_jax.data.class_folders import show_progress
from lska_jax.data.sources import Source
from lska_jax.data.tfds_source import TfdsSource, default_data_dir
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.catalogue import set_facts
from lska_jax.robustness.sets.cue_conflict import choose_shapes
from lska_jax.robustness.sets.label_sets import imagenet_wnids, shape_classes
from lska_jax.robustness.sets.real_labels import pad_label_sets

_TFDS_FOLDERS = ("", "tfds", "tensorflow_datasets")
# The one name that TFDS writes otherwise.
_TFDS_PARTS = {"top-images": "topimages"}


def tfds_name(cell: Cell) -> str | None:
    """Return the name of the TFDS set of a cell, or None where TFDS has none."""
    pattern = set_facts(cell.set).tfds
    if pattern is None:
        return None
    return pattern.format(part=_TFDS_PARTS.get(cell.part, cell.part), severity=cell.severity)


def tfds_dirs(data_root: Path) -> tuple[Path, ...]:
    """Return the folders in which prepared TFDS sets are looked for."""
    return (*(data_root / name for name in _TFDS_FOLDERS), default_data_dir())


def find_prepared_dir(cell: Cell, data_root: Path) -> Path | None:
    """Return the first of the folders in which a cell is prepared, or None."""
    name = tfds_name(cell)
    if name is None:
        return None
    for data_dir in tfds_dirs(data_root):
        # What an interrupted preparation left is called incomplete.*: only versions count.
        if any((data_dir / name).glob("[0-9]*/dataset_info.json")):
            return data_dir
    return None


def open_prepared(
    cell: Cell, data_dir: Path, *, shapes: Sequence[str] | None = None
) -> tuple[Source, Mapping[str, np.ndarray]]:
    """Open a prepared set.

    The labels of ImageNet-ReaL and of cue conflicts stand in the records beside the images, so
    opening these two reads their records once.

    Args:
      cell: the cell.
      data_dir: where it is prepared.
      shapes: as for ``sets.open_cell``.

    Returns:
      The images, and facts of each example as ``sets.CellData`` has them.

    Raises:
      ValueError: it is not prepared as ArrayRecord, or its classes are not those of the set.
    """
    split = set_facts(cell.set).tfds_split
    source = TfdsSource(str(tfds_name(cell)), split=split, data_dir=str(data_dir))
    wanted = tuple(shape_classes()) if cell.set == "cue_conflict" else imagenet_wnids()
    if source.class_names != wanted:
        raise ValueError(
            f"{source.name} has {len(source.class_names)} classes that are not the "
            f"{len(wanted)} of {set_facts(cell.set).title} in their order; prepare it again with "
            "TFDS 4.9.10 or later."
        )
    if cell.set == "imagenet_real":
        return source, {"real_labels": pad_label_sets(_read_all(source, "real_label"))}
    if cell.set == "cue_conflict":
        shape = np.array(_read_all(source, "shape_label"), np.int32)[:, 0]
        texture = np.array(_read_all(source, "texture_label"), np.int32)[:, 0]
        return choose_shapes(source, shape, texture, shapes)
    return source, {}


def _read_all(source: TfdsSource, key: str) -> list[tuple[int, ...]]:
    indices = show_progress(range(len(source)), source.name, "examples", len(source))
    return [source.integers(index, key) for index in indices]
