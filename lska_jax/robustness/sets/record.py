"""What a set of the benchmark is: one record of facts, places, an opener and a scorer.

A set is added with one ``ImageSet`` in the catalogue's ``SETS`` and with nothing else; the sweep,
the scores over cells, the listing and the report ask the record.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from lska_jax.data.class_folders import IMAGE_SUFFIXES
from lska_jax.data.listed_source import ListedSource
from lska_jax.data.sources import Source
from lska_jax.data.tfds_source import TfdsSource
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.scores.scorer import ClassSubset, Scorer
from lska_jax.robustness.sets.class_folders import ClassFolders, wnid_folders
from lska_jax.robustness.sets.label_sets import imagenet_wnids
from lska_jax.robustness.sets.layouts import LayoutOf
from lska_jax.robustness.sets.places import Place

# The images of a cell, and facts of each as ``opening.CellData`` has them.
Opened = tuple[Source, Mapping[str, np.ndarray]]


class MissingSet(ValueError):
    """Raised for a cell without images; the message, one line, says where to get them."""


class FoundFiles(NamedTuple):
    """The files of a cell, found in official folders or a tar.

    Attributes:
      place: the folder of the class folders.
      names: paths below it, in class order.
      labels: (N,) int32, one for each file.
      classes: the class folders of the set.
      data_root: the data folder.
      shapes: shape classes to keep, as for ``opening.open_cell``.
    """

    place: Place
    names: Sequence[str]
    labels: np.ndarray
    classes: ClassFolders
    data_root: Path
    shapes: Sequence[str] | None

    def source(self) -> ListedSource:
        """Return the files with their labels as a source."""
        return ListedSource(
            f"folder:{self.place.name}",
            self.place.tree.choose(self.place.inner, self.names),
            self.labels,
            self.classes.class_names(),
        )


def open_images(found: FoundFiles) -> Opened:
    """Open images that need nothing but their labels."""
    return found.source(), {}


def keep_labels(source: TfdsSource, shapes: Sequence[str] | None) -> Opened:
    """Open a TFDS set whose labels are right as they are."""
    return source, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsCopy:
    """A set as TFDS prepares it.

    Attributes:
      name: with ``{part}`` and ``{severity}``.
      trap: what sets it apart from the official files.
      split: the split.
      part_names: parts that TFDS calls by other names.
      class_names: returns the classes that it must have, in label order.
      open: opens it; takes the prepared source, and shapes as ``opening.open_cell`` does.
    """

    name: str
    trap: str
    split: str = "test"
    part_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_names: Callable[[], tuple[str, ...]] = imagenet_wnids
    open: Callable[[TfdsSource, Sequence[str] | None], Opened] = keep_labels

    def name_of(self, cell: Cell) -> str:
        """Return the name of the TFDS set of a cell."""
        part = self.part_names.get(cell.part, cell.part)
        return self.name.format(part=part, severity=cell.severity)


class OwnClasses(NamedTuple):
    """A set as it is measured for models with classes of their own.

    Attributes:
      name: what it is called in results.
      scorer: what it is scored by.
    """

    name: str
    scorer: Scorer


class Maker(Protocol):
    """Makes the images of a set from the clean ones."""

    def __call__(self, clean: Source, part: str, *, seed: int, max_pixels: int) -> Opened:
        """Return the images of one part, and facts of each.

        Args:
          clean: in the model's classes.
          part: of the set.
          seed: of what is drawn.
          max_pixels: an image file of more is broken.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One set of the benchmark.

    Attributes:
      name: in the catalogue, in suites and in results.
      title: as the literature writes it.
      label_space: what labels mean, for a person.
      parts: corruptions, perturbations or variants; ("",) where a set has none.
      severities: (0,) where a set has none.
      citation: authors, title, place.
      license: of the images; None where it is not known.
      where: the page its authors publish it on.
      download_gb: size of all downloads together in 10^9 bytes; None where it is not known.
      num_images: in each cell.
      unit: what is counted: "images", or "sequences" of frames.
      stored_size: side of the square images in pixels if they are cropped already, else None.
      note: what else to know, or "".
      layout: official folders, in one line.
      places: returns where a cell may lie.
      classes: how class folders are named.
      suffixes: how file names end.
      beside: files of which one has to lie in the data folder too; () where there are none.
      tfds: the set as TFDS prepares it; None where TFDS has none.
      open_files: opens files found in official folders.
      make: makes its images from the clean ones, of which it then has as many; None where they are
        files.
      scorer: scores of a cell and over cells.
      subset: returns the classes that compete, where they are some of the 1000; else None.
      is_clean: whether these are the clean images, which ``--clean`` replaces.
      can_be_generated: whether its parts are corruptions that can be made from the clean images.
      has_shapes: whether labels are shape classes, of which a model may know some.
      own: how it is measured for models with classes of their own; None where it cannot be.
    """

    name: str
    title: str
    label_space: str
    parts: tuple[str, ...] = ("",)
    severities: tuple[int, ...] = (0,)
    citation: str
    license: str | None = None
    where: str
    download_gb: float | None = None
    num_images: int
    unit: str = "images"
    stored_size: int | None = None
    note: str = ""
    layout: str
    places: LayoutOf
    classes: ClassFolders = dataclasses.field(default_factory=wnid_folders)
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    beside: tuple[str, ...] = ()
    tfds: TfdsCopy | None = None
    open_files: Callable[[FoundFiles], Opened] = open_images
    make: Maker | None = None
    scorer: Scorer = dataclasses.field(default_factory=Scorer)
    subset: Callable[[], ClassSubset] | None = None
    is_clean: bool = False
    can_be_generated: bool = False
    has_shapes: bool = False
    own: OwnClasses | None = None

    @property
    def size(self) -> str:
        """The size of the download, for a person."""
        return "size not known" if self.download_gb is None else f"{self.download_gb:.2g} GB"

    def find_beside(self, data_root: Path) -> Path | None:
        """Return the file that has to lie in the data folder too, or None."""
        return next((file for name in self.beside if (file := data_root / name).is_file()), None)
