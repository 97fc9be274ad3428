"""Sets of the benchmark that TFDS prepared, relabelled where their features are special."""

from collections.abc import Sequence
from pathlib import Path

from lska_jax.data.class_folders import show_progress
from lska_jax.data.tfds_source import TfdsSource, default_data_dir
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.record import ImageSet, Opened

_TFDS_FOLDERS = ("", "tfds", "tensorflow_datasets")


def tfds_dirs(data_root: Path) -> tuple[Path, ...]:
    """Return the folders in which prepared TFDS sets are looked for."""
    return (*(data_root / name for name in _TFDS_FOLDERS), default_data_dir())


def find_prepared_dir(image_set: ImageSet, cell: Cell, data_root: Path) -> Path | None:
    """Return the first of the folders in which a cell is prepared, or None."""
    if image_set.tfds is None:
        return None
    name = image_set.tfds.name_of(cell)
    for data_dir in tfds_dirs(data_root):
        # What an interrupted preparation left is called incomplete.*: only versions count.
        if any((data_dir / name).glob("[0-9]*/dataset_info.json")):
            return data_dir
    return None


def open_prepared(
    image_set: ImageSet, cell: Cell, *, data_dir: Path, shapes: Sequence[str] | None = None
) -> Opened:
    """Open a prepared set.

    Where labels stand in the records beside the images, opening the set reads its records once.

    Args:
      image_set: the cell's set, which TFDS has.
      cell: the cell.
      data_dir: where it is prepared.
      shapes: as for ``opening.open_cell``.

    Returns:
      The images, and facts of each example as ``opening.CellData`` has them.

    Raises:
      ValueError: it is not prepared as ArrayRecord, or its classes are not those of the set.
    """
    tfds = image_set.tfds
    if tfds is None:
        raise ValueError(f"TFDS has no {image_set.title}; read its authors' files instead.")
    source = TfdsSource(tfds.name_of(cell), split=tfds.split, data_dir=str(data_dir))
    wanted = tfds.class_names()
    if source.class_names != wanted:
        raise ValueError(
            f"{source.name} has {len(source.class_names)} classes that are not the "
            f"{len(wanted)} of {image_set.title} in their order; prepare it again with TFDS "
            "4.9.10 or later."
        )
    return tfds.open(source, shapes)


def read_integers(source: TfdsSource, key: str) -> list[tuple[int, ...]]:
    """Return a feature of every record."""
    indices = show_progress(range(len(source)), source.name, "examples", len(source))
    return [source.integers(index, key) for index in indices]
