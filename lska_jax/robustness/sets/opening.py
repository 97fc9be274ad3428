"""Open a cell of the benchmark: find its images, label them in the model's classes.

Official folders and tars are read in place (``layouts`` says which); TFDS sets are read as they
were prepared, without TensorFlow. Both give the same labels: ImageNet's 0 to 999 by WordNet id, for
every set but the cue conflicts, whose labels are shapes.

What is not there is a ``MissingSet``, which a sweep records as a hole and goes on; what is there
and wrong, such as a folder that is no class of the set, is a plain ValueError. An incomplete set
opens, and its ``note`` says what is missing.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lska_jax.data.sources import Source
from lska_jax.robustness.cells import Cell, Hole
from lska_jax.robustness.sets.catalogue import find_set
from lska_jax.robustness.sets.cue_conflict import ChosenSource
from lska_jax.robustness.sets.official import open_official, search
from lska_jax.robustness.sets.places import Search
from lska_jax.robustness.sets.prepared import find_prepared_dir, open_prepared, tfds_dirs
from lska_jax.robustness.sets.record import ImageSet, MissingSet

SOURCES = ("auto", "official", "tfds")


class CellData(NamedTuple):
    """The images of a cell.

    Attributes:
      source: the images. Labels are ImageNet's 0 to 999; of cue conflicts the shape class, an index
        into ``source.class_names``; of ImageNet-O 0, which means nothing.
      provenance: "official" or "tfds".
      origin: folder, archive or TFDS set that is read.
      extra: facts of each example, in the order of the source. cue_conflict: "texture" (N,) int32;
        imagenet_real: "real_labels" (N, most) int32, filled up with -1, all -1 where no label fits;
        imagenet_p: "sequence" and "frame" (N,) int32, frames of a sequence in order and together;
        imagenet_o: "is_ood" (N,) bool, True.
      note: what makes the cell incomparable with published numbers, or "".
    """

    source: Source
    provenance: str
    origin: str
    extra: Mapping[str, np.ndarray]
    note: str = ""


def open_cell(
    cell: Cell,
    *,
    data_root: str | os.PathLike[str],
    provenance: str = "auto",
    shapes: Sequence[str] | None = None,
) -> CellData:
    """Open the images of a cell.

    Args:
      cell: of a set in the catalogue.
      data_root: the folder that holds the sets, or one set's own folder.
      provenance: "official", "tfds", or "auto": official where it is there, else TFDS.
      shapes: cue_conflict only: keep stimuli whose shape and texture are both among these, which
        then are the classes, in this order; None keeps all 16.

    Raises:
      MissingSet: there are no images, or the cell's folder is empty.
      ValueError: an argument is not allowed, or what is there is wrong: a folder that is no class,
        a compressed tar, a TFDS set in another format.
    """
    root = Path(data_root).expanduser()
    image_set = _checked_set(cell, provenance=provenance, shapes=shapes)
    found = None if provenance == "tfds" else search(image_set, cell, root)
    if found is not None and found.place is not None:
        source, extra, note = open_official(
            image_set, cell, place=found.place, data_root=root, shapes=shapes
        )
        data = CellData(source, "official", found.place.name, extra, note)
    elif provenance != "official" and (folder := find_prepared_dir(image_set, cell, root)):
        source, extra = open_prepared(image_set, cell, data_dir=folder, shapes=shapes)
        name = image_set.tfds.name_of(cell) if image_set.tfds else ""
        data = CellData(source, "tfds", f"tfds:{name} in {folder}", extra)
    else:
        raise MissingSet(_missing_message(image_set, cell, root, found, provenance))
    if shapes is not None:
        return data._replace(note=_state_shared(data, shapes))
    return _state_incompleteness(image_set, data)


def make_cell(
    cell: Cell, clean: Callable[[], CellData], *, seed: int, max_image_pixels: int
) -> CellData:
    """Make the images of a cell from the clean ones.

    Args:
      cell: of a set that is made.
      clean: returns the clean images.
      seed: of what is drawn.
      max_image_pixels: an image file of more is broken.

    Raises:
      ValueError: the clean images cannot be opened, or allow none of these; see the set.
    """
    make = find_set(cell.set).make
    assert make is not None  # as the plan has asked
    data = clean()
    source, extra = make(data.source, cell.part, seed=seed, max_pixels=max_image_pixels)
    return data._replace(source=source, provenance="generated", extra=extra)


def find_missing(
    cells: Iterable[Cell], *, data_root: str | os.PathLike[str], provenance: str = "auto"
) -> tuple[Hole, ...]:
    """Look for the images of cells without listing them.

    Args:
      cells: of sets in the catalogue.
      data_root: as for ``open_cell``.
      provenance: as for ``open_cell``.

    Returns:
      The cells that ``open_cell`` would find nothing for, with what its error would say.

    Raises:
      ValueError: an argument is not allowed, or a tar cannot be read.
    """
    root = Path(data_root).expanduser()
    holes = []
    for cell in cells:
        image_set = _checked_set(cell, provenance=provenance, shapes=None)
        found = None if provenance == "tfds" else search(image_set, cell, root)
        if found is not None and found.place is not None:
            continue
        if provenance == "official" or find_prepared_dir(image_set, cell, root) is None:
            reason = _missing_message(image_set, cell, root, found, provenance)
            holes.append(Hole(cell, reason))
    return tuple(holes)


def choose_provenances(
    cells: Iterable[Cell], *, data_root: str | os.PathLike[str]
) -> dict[str, str]:
    """Choose for each set one provenance for all its cells.

    A mean over cells must not mix the official images with TFDS's, which differ. The provenance
    with more of the cells is chosen, official where both have as many.

    Args:
      cells: of sets in the catalogue.
      data_root: as for ``open_cell``.

    Returns:
      "official" or "tfds" by set, in the order in which sets first come.

    Raises:
      ValueError: as ``find_missing``.
    """
    root = Path(data_root).expanduser()
    counts: dict[str, dict[str, int]] = {}
    for cell in cells:
        image_set = _checked_set(cell, provenance="auto", shapes=None)
        count = counts.setdefault(cell.set, {"official": 0, "tfds": 0})
        count["official"] += search(image_set, cell, root).place is not None
        count["tfds"] += find_prepared_dir(image_set, cell, root) is not None
    # max takes the first of equals.
    return {name: max(count, key=count.__getitem__) for name, count in counts.items()}


def _checked_set(cell: Cell, *, provenance: str, shapes: Sequence[str] | None) -> ImageSet:
    """Return the set of a cell once it is known that the arguments fit it."""
    image_set = find_set(cell.set)
    if cell.part not in image_set.parts or cell.severity not in image_set.severities:
        raise ValueError(
            f"{image_set.title} has no cell {cell}; its parts are "
            f"{', '.join(image_set.parts) or 'none'}, its severities "
            f"{', '.join(map(str, image_set.severities))} (0 for none)."
        )
    if provenance not in SOURCES:
        raise ValueError(
            f"provenance is {provenance!r}; images on disk are one of {', '.join(SOURCES)}. "
            "Generated ones come from the clean set."
        )
    if shapes is not None and not image_set.has_shapes:
        raise ValueError(f"shapes choose among cue conflicts; {cell} has none: pass None.")
    return image_set


def _state_incompleteness(image_set: ImageSet, data: CellData) -> CellData:
    """Add to the note how many images are missing, if any are."""
    is_sequential = "sequence" in data.extra
    count = len(np.unique(data.extra["sequence"])) if is_sequential else len(data.source)
    if count == image_set.num_images and not data.note:
        return data
    notes = [f"incomplete: {count:,} of {image_set.num_images:,} {image_set.unit}", data.note]
    return data._replace(note="; ".join(note for note in notes if note))


def _state_shared(data: CellData, shapes: Sequence[str]) -> str:
    """Return how many stimuli a model's classes leave, and how many of them have a conflict."""
    shared = f"shared classes only: {', '.join(shapes)}"
    source = data.source
    if not isinstance(source, ChosenSource):
        return shared
    conflicts = int(np.sum(source.labels != data.extra["texture"]))
    return (
        f"{shared}: {len(source):,} of {source.num_whole:,} stimuli, {conflicts:,} of them with a "
        "conflict"
    )


def _missing_message(
    image_set: ImageSet, cell: Cell, root: Path, found: Search | None, provenance: str
) -> str:
    # The same words for all cells of a set: a set that is missing is one hole to a reader.
    parts = [f"{image_set.title} is missing"]
    if found is not None and found.empty:
        parts[0] = f"{cell} is empty: no class folder with images in {', '.join(found.empty)}"
    elif found is not None:
        looked = (
            f"looked in {root} for" if root.is_dir() else f"{root} is no folder; expected in it:"
        )
        parts.append(f"{looked} {_without_cell(found.tried, image_set, cell)}")
    if found is not None and found.packed:
        parts.append(f"unpack {', '.join(found.packed)} first")
    if provenance != "official" and image_set.tfds:
        dirs = ", ".join(map(str, tfds_dirs(root)))
        parts.append(f"no TFDS set {image_set.tfds.name} is prepared in {dirs}")
    parts.append(
        f"get {image_set.title} ({image_set.size}, {image_set.num_images:,} {image_set.unit} a "
        f"cell) from {image_set.where} and lay it out as {image_set.layout}"
    )
    if image_set.can_be_generated:
        parts.append("or have it generated from the clean images")
    return "; ".join(parts)


def _without_cell(paths: str, image_set: ImageSet, cell: Cell) -> str:
    """Return paths with words in place of a cell's own part, severity and archive."""
    if cell.part:
        paths = paths.replace(cell.part, "PART").replace(f"PART/{cell.severity}", "PART/SEVERITY")
    for group in image_set.places(cell).groups:
        paths = paths.replace(f"{group}/", "GROUP/").replace(f"{group}.tar", "GROUP.tar")
    return ", ".join(dict.fromkeys(paths.split(", ")))
