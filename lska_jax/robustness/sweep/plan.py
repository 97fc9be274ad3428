"""What a sweep is asked for: its options, and the cells that follow from them.

Models of ImageNet's classes are measured on the sets of the catalogue. Models of other classes are
measured on their own clean images ("clean"), on corruptions generated from them or given as files
("clean_c", "own_c"), on cue conflicts made of them, and on the cue conflict for the shape classes
that both share.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lska_jax.data import drawings
from lska_jax.data.augment import EvalTransform
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.opening import open_source
from lska_jax.data.sources import Record, Source
from lska_jax.data.tfds_source import default_data_dir
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.catalogue import SETS, clean_cell, find_set, parse_suite
from lska_jax.robustness.sets.cue_conflict import ShapeGroups, shape_groups
from lska_jax.robustness.sets.label_sets import shape_classes
from lska_jax.robustness.sets.made_conflict import MADE_CONFLICT
from lska_jax.robustness.sets.opening import (
    SOURCES,
    CellData,
    choose_provenances,
    find_missing,
    make_cell,
    open_cell,
)
from lska_jax.robustness.sweep.classifier import Classifier
from lska_jax.robustness.sweep.given_cells import find_given_cells
from lska_jax.tasks.class_order import RelabelledSource, describe_difference, in_order, same_order
from lska_jax.tasks.predict import eval_transform
from lska_jax.weights.class_names import imagenet_names, imagenet_wnids, readable_names

# The official generator's crop: short side 256 for 224 pixels, bilinear.
_GENERATOR_CROP_PCT = 0.875
_LEAST = {"limit": 0, "seed": 0, "batch_size": 1, "num_workers": -1, "max_image_pixels": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What to measure, on which images.

    Attributes:
      suite: "paper", "full", "smoke", or names of sets, with commas between them or in a list.
      data_root: folder that the sets lie in, official or prepared by TFDS; None is TFDS's default.
      provenance: "official", "tfds", or "auto": official where it is there, else TFDS.
      generate: whether ImageNet-C is made from the clean images instead of read.
      clean: the clean images, any source that ``train.py`` takes; "" finds ImageNet's validation
        split like the other sets.
      clean_split: split of that source.
      corrupted: corrupted images of the model's own classes, see ``sets.own_corrupted``; "" has
        them generated.
      pixels: "direct" shows images that are stored ready for the network (ImageNet-C, C-bar, P, cue
        conflict) as they are; "resize" resizes and crops them as photos, which zooms in.
      limit: images a cell, the same ones in every cell of a set; 0 takes all.
      seed: of the generated corruptions, and of the choice that ``limit`` makes.
      frost_pictures: folder of the official frost pictures; "" draws crystals instead.
      batch_size: images of a batch, over all devices.
      num_workers: decoding processes; -1 chooses by the number of cores.
      max_image_pixels: an image file of more is broken, whatever its format.
    """

    suite: str | Sequence[str] = "paper"
    data_root: str | None = None
    provenance: str = "auto"
    generate: bool = False
    clean: str = ""
    clean_split: str = "validation"
    corrupted: str = ""
    pixels: str = "direct"
    limit: int = 0
    seed: int = 0
    frost_pictures: str = ""
    batch_size: int = 256
    num_workers: int = -1
    max_image_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
          ValueError: a field has a value that is not allowed.
        """
        suite = self.suite if isinstance(self.suite, str) else ",".join(self.suite)
        object.__setattr__(self, "suite", suite)
        for name in ("clean", "corrupted", "frost_pictures"):
            object.__setattr__(self, name, str(getattr(self, name) or ""))
        for name, allowed in (
            ("provenance", SOURCES),
            ("pixels", ("direct", "resize")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}."
                )
        for name, low in _LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value < 2**32:
                raise ValueError(f"{name} is {value!r}; give a whole number of at least {low}.")

    def settings(self) -> dict[str, Any]:
        """Return what changes a number, for the header of the results file."""
        names = ("provenance", "generate", "clean", "clean_split", "pixels", "limit", "seed")
        settings = {name: getattr(self, name) for name in names}
        # Where a folder lies, however it was written.
        kind, colon, place = self.clean.partition(":")
        if kind == "folder" and colon:
            settings["clean"] = f"folder:{Path(place).expanduser().resolve()}"
        if self.corrupted:
            # Absent otherwise, as in files of before.
            settings["corrupted"] = str(Path(self.corrupted).expanduser().resolve())
        frost = self.frost_pictures
        settings["frost_pictures"] = str(Path(frost).expanduser().resolve()) if frost else ""
        # Results files of before the option have none.
        if self.max_image_pixels != MAX_PIXELS:
            settings["max_image_pixels"] = self.max_image_pixels
        return settings


class PlannedCell(NamedTuple):
    """A cell and how its images come about.

    Attributes:
      cell: which.
      open: returns its images; raises ValueError or OSError where that is impossible.
      corruption: name and severity that are generated from them, or None.
      is_ready: whether the images are stored ready for the network.
    """

    cell: Cell
    open: Callable[[], CellData]
    corruption: tuple[str, int] | None = None
    is_ready: bool = False


def plan_cells(options: SweepOptions, classifiers: Sequence[Classifier]) -> list[PlannedCell]:
    """Return the cells of a sweep, in the order in which they are measured.

    Raises:
      ValueError: the models' classes differ, or do not fit the sets or the clean images.
    """
    cells = parse_suite(str(options.suite))
    first = classifiers[0]
    for other in classifiers[1:]:
        names, others = first.class_names or imagenet_names(), other.class_names or imagenet_names()
        if not same_order(names, others):
            difference = describe_difference(
                others, names, what=other.stamp.name, other_what=first.stamp.name
            )
            raise ValueError(
                f"{first.stamp.name} and {other.stamp.name} have different classes; one sweep "
                f"compares models of the same classes in the same order: {difference}."
            )
    if options.generate and options.corrupted:
        raise ValueError("Corrupted images are generated or given: --generate or --corrupted.")
    if first.class_names is None and options.corrupted:
        raise ValueError(
            f"{first.stamp.name} has ImageNet's classes: lay its corrupted images out as "
            "imagenet-c/CORRUPTION/SEVERITY/WNID below --data_root, without --corrupted."
        )
    if first.class_names is None:
        return _imagenet_cells(cells, options)
    _check_own_classes(cells, options, first)
    return _own_cells(cells, options, first.class_names)


def cell_transform(
    planned: PlannedCell, classifier: Classifier, options: SweepOptions
) -> EvalTransform:
    """Return the host side of a cell's preprocessing: decode, resize, crop."""
    usual = eval_transform(classifier.preprocessing, max_image_pixels=options.max_image_pixels)
    if planned.is_ready and options.pixels == "direct":
        return dataclasses.replace(usual, crop_pct=1.0)
    if planned.corruption and classifier.is_imagenet:
        return dataclasses.replace(
            usual, crop_pct=_GENERATOR_CROP_PCT, interpolation="bilinear", crop_mode="center"
        )
    return usual


def groups_of(classifier: Classifier) -> ShapeGroups:
    """Return the shape classes that a model can decide between, and its classes of each."""
    return shape_groups(classifier.class_names or imagenet_wnids())


def limited(data: CellData, options: SweepOptions) -> tuple[CellData, np.ndarray]:
    """Return the images that ``limit`` leaves, and their positions in the whole source.

    They are drawn over the whole source, the same for sources of one length; of videos whole
    sequences are kept.
    """
    count = len(data.source)
    positions = np.arange(count)
    if not options.limit or options.limit >= count:
        return data, positions
    rng = np.random.default_rng(options.seed)
    if "sequence" in data.extra:
        sequences, first = np.unique(data.extra["sequence"], return_index=True)
        frames = count // len(first)
        chosen = rng.permutation(sequences)[: max(1, options.limit // frames)]
        positions = np.flatnonzero(np.isin(data.extra["sequence"], chosen))
    else:
        positions = np.sort(rng.permutation(count)[: options.limit])
    extra = {name: array[positions] for name, array in data.extra.items()}
    return data._replace(source=_Subset(data.source, positions), extra=extra), positions


class _Subset:
    """Some examples of a source."""

    def __init__(self, source: Source, positions: np.ndarray):
        self._source = source
        self._positions = positions
        self.name = f"{len(positions)} images of {source.name}"
        self.class_names = source.class_names

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._positions[index])]

    def path(self, index: int) -> str:
        return self._source.path(int(self._positions[index]))


def _provenances(cells: Sequence[Cell], options: SweepOptions) -> dict[Cell, str]:
    """Return where each cell is read from: for all cells of a set the same, if it is there."""
    cells = [*cells, clean_cell()]
    if options.provenance != "auto":
        return dict.fromkeys(cells, options.provenance)
    root = _data_root(options)
    chosen = dict.fromkeys(cells, "auto")
    for name in dict.fromkeys(cell.set for cell in cells):
        of_set = [cell for cell in cells if cell.set == name]
        try:
            provenance = choose_provenances(of_set, data_root=root)[name]
            # What is missing is looked for in both places, so that its message names both.
            missing = {hole.cell for hole in find_missing(of_set, data_root=root)}
        except (ValueError, OSError):
            continue  # an archive that cannot be read, which becomes the hole of its cells
        chosen |= {cell: provenance for cell in of_set if cell not in missing}
    return chosen


def _imagenet_cells(cells: Sequence[Cell], options: SweepOptions) -> list[PlannedCell]:
    provenances = _provenances(cells, options)

    def read(cell: Cell) -> CellData:
        return open_cell(cell, data_root=_data_root(options), provenance=provenances[cell])

    @functools.cache
    def clean() -> CellData:
        return _open_imagenet(options) if options.clean else read(clean_cell())

    if options.clean:
        clean()  # what was asked for by name is an error now, not a hole of every cell
    planned = []
    for cell in cells:
        image_set = find_set(cell.set)
        if image_set.is_clean:
            planned.append(PlannedCell(cell, clean))
        elif image_set.make:
            planned.append(_made(cell, clean, options))
        elif image_set.can_be_generated and options.generate:
            planned.append(PlannedCell(cell, clean, corruption=(cell.part, cell.severity)))
        else:
            is_ready = image_set.stored_size is not None
            planned.append(PlannedCell(cell, functools.partial(read, cell), is_ready=is_ready))
    return planned


def _made(cell: Cell, clean: Callable[[], CellData], options: SweepOptions) -> PlannedCell:
    seed, pixels = options.seed, options.max_image_pixels
    return PlannedCell(
        cell, functools.partial(make_cell, cell, clean, seed=seed, max_image_pixels=pixels)
    )


def _own_cells(
    cells: Sequence[Cell], options: SweepOptions, class_names: tuple[str, ...]
) -> list[PlannedCell]:
    @functools.cache
    def clean() -> CellData:
        return _open_clean(options, class_names)

    if options.clean:
        clean()

    def read(cell: Cell) -> CellData:
        return open_cell(
            cell,
            data_root=_data_root(options),
            provenance=options.provenance,
            shapes=shape_groups(class_names).names if find_set(cell.set).has_shapes else None,
        )

    planned = []
    for cell in cells:
        image_set = find_set(cell.set)
        own = cell._replace(set=image_set.own.name if image_set.own else cell.set)
        if image_set.is_clean:
            planned.append(PlannedCell(own, clean))
        elif image_set.make:
            planned.append(_made(own, clean, options))
        elif image_set.can_be_generated and options.corrupted:
            continue
        elif image_set.can_be_generated:
            planned.append(PlannedCell(own, clean, corruption=(cell.part, cell.severity)))
        else:
            is_ready = image_set.stored_size is not None
            planned.append(PlannedCell(own, functools.partial(read, cell), is_ready=is_ready))
    if options.corrupted:
        given = find_given_cells(
            cells, options.corrupted, suite=str(options.suite), class_names=class_names
        )
        planned += [PlannedCell(cell, read_given, is_ready=True) for cell, read_given in given]
    return planned


def _data_root(options: SweepOptions) -> str | Path:
    return options.data_root or default_data_dir()


def _open_imagenet(options: SweepOptions) -> CellData:
    """Open clean images of some or all of ImageNet's classes, by WordNet id or by word."""
    source = open_source(options.clean, split=options.clean_split, data_dir=options.data_root)
    label_of = {name: label for label, name in enumerate(imagenet_names())}
    names = readable_names(source.class_names)
    if len(names) == len(label_of) or not all(name in label_of for name in names):
        return _open_clean(options, imagenet_wnids())
    relabelled = RelabelledSource(source, [label_of[name] for name in names], imagenet_wnids())
    return CellData(
        source=relabelled,
        provenance=_provenance_of(options.clean),
        origin=source.name,
        extra={},
        note=f"incomplete: {len(names)} of {len(label_of)} classes",
    )


def _provenance_of(spec: str) -> str:
    return "tfds" if spec.startswith("tfds:") else "own"


def _open_clean(options: SweepOptions, class_names: Sequence[str]) -> CellData:
    source = open_source(options.clean, split=options.clean_split, data_dir=options.data_root)
    advice = "Give the images that the model's classes belong to with --clean."
    source = in_order(source, class_names, whose="the model", advice=advice)
    return CellData(
        source=source,
        provenance=_provenance_of(options.clean),
        origin=source.name,
        extra={},
        note=drawings.NOTE if options.clean == drawings.NAME else "",
    )


def _check_own_classes(
    cells: Sequence[Cell], options: SweepOptions, classifier: Classifier
) -> None:
    who = f"{classifier.stamp.name} has {classifier.num_classes} classes of its own"
    asked = [find_set(name) for name in dict.fromkeys(cell.set for cell in cells)]
    foreign = [image_set.name for image_set in asked if image_set.own is None]
    if foreign:
        allowed = [name for name, image_set in SETS.items() if image_set.own]
        raise ValueError(
            f"{who}; {', '.join(foreign)} can only be measured for ImageNet's 1,000. Allowed: "
            f"--suite {','.join(allowed)} or some of them."
        )
    if any(one.is_clean or one.can_be_generated or one.make for one in asked) and (
        not options.clean
    ):
        raise ValueError(
            f"{who}: name its clean images, for example --clean folder:PATH. For CIFAR-10's ten "
            "--clean drawings --clean_split test needs no data."
        )
    if any(one.can_be_generated for one in asked) and not (options.generate or options.corrupted):
        raise ValueError(
            f"{who}: its corrupted images have to be generated, add --generate, or given, "
            "--corrupted PLACE."
        )
    of_shapes = [image_set.name for image_set in asked if image_set.has_shapes]
    if of_shapes and len(groups_of(classifier).names) < 2:
        raise ValueError(
            f"{who}, and fewer than two of the cue conflict's 16 are among them (it has "
            f"{', '.join(shape_classes())}); leave {of_shapes[0]} out of --suite, or measure "
            f"{MADE_CONFLICT.name}, whose stimuli are made of the clean images."
        )
