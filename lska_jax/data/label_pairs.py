"""Pairs of an image and a label map: folders of files whose names agree, and ADE20K's.

| | images | label maps | names of the classes, if the file is there |
|---|---|---|---|
| ``maps`` | ``images[/SPLIT]`` | ``labels[/SPLIT]`` | ``classes.txt``, one a line |
| ``ade20k`` | ``images/SPLIT`` | ``annotations/SPLIT`` | ``objectInfo150.txt`` |

A label map is a PNG of ids; 255 is no class. ADE20K's (ADEChallengeData2016) counts classes from 1,
and 0 is no class. Formats and sizes of all maps are compared when a split is opened, and ids of all
maps of a small set, of a part of a large one; a map that turns out to hold an id of no class later
is a broken example, which is named and never trained on.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lska_jax.data.class_folders import IMAGE_SUFFIXES, readable
from lska_jax.data.decode import upright_size
from lska_jax.data.folder_tree import FolderTree
from lska_jax.data.image_file import read_header
from lska_jax.data.label_maps import find_format_fault, read_label_map
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.long_lists import list_lines
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.scenes import IGNORED_LABEL, PixelLabels
from lska_jax.data.sources import BrokenImage, Extent, SourceFacts, check_index
from lska_jax.data.split_names import choose_split
from lska_jax.data.split_slices import drawn_ranks, parse_slices, slice_bounds

_MAP_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".pgm")
_MOST = f"and ids of 8 bits, of which {IGNORED_LABEL} is no class, tell {IGNORED_LABEL} apart"
_THREADS = 16
# Maps are read whole when a split is opened, from all over it: of so many pixels, or this many.
_PROBED_PIXELS, _LEAST_PROBED = 200_000_000, 64


class PairLayout(NamedTuple):
    """Where a kind of set keeps its files.

    Attributes:
      kind: its short name.
      labels: the folder of the label maps.
      classes: the file of the classes' names.
      first_id: id of the first class; where it is 1, 0 is no class.
      num_classes: if it is fixed, else 0.
    """

    kind: str
    labels: str
    classes: str
    first_id: int = 0
    num_classes: int = 0


LAYOUTS = {
    "maps": PairLayout("maps", "labels", "classes.txt"),
    "ade20k": PairLayout("ade20k", "annotations", "objectInfo150.txt", first_id=1, num_classes=150),
}


class LabelPairs:
    """Images and their label maps.

    Args:
      kind: key of ``LAYOUTS``.
      location: the folder; ``~`` is expanded.
      split: as in ``train`` or ``train[:80%]``.
      num_classes: of the labels, where the set does not say it.
      max_pixels: a label map of more counts as broken.

    Raises:
      ValueError: the folder or split is missing, files have no partner, sizes differ, or a label
        map is none; every file is named.
    """

    def __init__(
        self,
        kind: str,
        location: str,
        *,
        split: str,
        num_classes: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.name, self._max_pixels = f"{kind}:{location}/{split}", max_pixels
        self._layout, self._root = LAYOUTS[kind], Path(location).expanduser()
        self.first_id = self._layout.first_id
        pairs = _list_pairs(self._layout, self._root, split)
        self._images, self._maps = [p[0] for p in pairs.files], [p[1] for p in pairs.files]
        self.extents = pairs.extents
        self.class_names = _read_class_names(self._layout, self._root, num_classes)
        self.sizes = self._check_pairs()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._images)

    def __getitem__(self, index: int) -> PixelLabels:
        """Return pair ``index``, its label map decoded."""
        check_index(index, len(self), self.name)
        image = read_plain_file(self._images[index])
        return PixelLabels(image, self._read_map(index), index)

    def path(self, index: int) -> str:
        """Return the path of an image."""
        check_index(index, len(self), self.name)
        return readable(str(self._images[index]))

    def _read_map(self, index: int) -> np.ndarray:
        path = self._maps[index]
        try:
            ids = read_label_map(read_plain_file(path), max_pixels=self._max_pixels)
        except BrokenImage as error:
            raise BrokenImage(f"its label map {path}: {error}") from error
        ids = ids.astype(np.int32)
        is_none = ids == (0 if self.first_id else IGNORED_LABEL)
        is_wrong = (ids >= len(self.class_names) + self.first_id) & ~is_none
        if is_wrong.any():
            raise BrokenImage(
                f"its label map {path} has the id {int(ids[is_wrong].max())}, beyond the "
                f"{len(self.class_names)} classes"
            )
        return np.where(is_none, IGNORED_LABEL, ids - self.first_id).astype(np.uint8)

    def _check_pairs(self) -> np.ndarray:
        """Return the sizes of all images, (N, 2); refuse pairs that are none."""
        with ThreadPoolExecutor(_THREADS) as pool:
            images = list(pool.map(_size_of, self._images))
            maps = list(pool.map(_header_of, self._maps))
            faults = {
                index: f"{self._maps[index]}: {fault}"
                for index, (of_image, of_map) in enumerate(zip(images, maps, strict=True))
                if (fault := _find_fault(of_image, of_map))
            }
            sound = [index for index in range(len(self)) if index not in faults]
            probed = _spread(sound, [header.size for header in maps])
            faults |= zip(probed, pool.map(self._find_id_fault, probed), strict=True)
        problems = [faults[index] for index in sorted(faults) if faults[index]]
        _refuse(f"The label maps of {self.name} do not fit", problems)
        return np.array([size or (1, 1) for size in images])

    def _find_id_fault(self, index: int) -> str:
        try:
            self._read_map(index)
        except BrokenImage as error:
            return str(error).removeprefix("its label map ")
        return ""


def inspect_pairs(kind: str, location: str, *, split: str, num_classes: int) -> SourceFacts:
    """Count classes and pairs without opening a file; arguments are those of ``LabelPairs``."""
    layout, root = LAYOUTS[kind], Path(location).expanduser()
    pairs = _list_pairs(layout, root, split)
    return SourceFacts(len(_read_class_names(layout, root, num_classes)), len(pairs.files))


class _Pairs(NamedTuple):
    files: list[tuple[Path, Path]]
    extents: tuple[Extent, ...]


def _list_pairs(layout: PairLayout, root: Path, split: str) -> _Pairs:
    for folder in ("images", layout.labels):
        if not (root / folder).is_dir():
            raise ValueError(
                f"There is no folder {root / folder}; {layout.kind}:PATH reads PATH/images and "
                f"PATH/{layout.labels}."
            )
    files: list[tuple[Path, Path]] = []
    extents: list[Extent] = []
    for part in parse_slices(split):
        inner = _split_folder(root / "images", part.split)
        whole = _all_pairs(layout, root, inner)
        begin, end = slice_bounds(part, (len(whole),))
        order = np.arange(len(whole))
        if not part.is_whole:
            ranks = drawn_ranks([image.name for image, _ in whole], seed=part.seed)
            order = np.argsort(ranks, kind="stable")
        files += [whole[index] for index in sorted(order[begin:end].tolist())]
        place = str((root / "images" / inner).resolve())
        extents.append(Extent(place, begin, end, part.seed))
    if not files:
        raise ValueError(f"{layout.kind}:{root} split {split!r} has no image.")
    return _Pairs(files, tuple(extents))


def _split_folder(images: Path, split: str) -> str:
    """Return the folder of a split below ``images``; "" where there are no folders."""
    folders = FolderTree(images, IMAGE_SUFFIXES).folders("")
    if not folders:
        return ""
    chosen = choose_split(split, folders, where=str(images))
    if chosen is None:
        raise ValueError(f"{images} has no split {split!r}; it has {', '.join(folders)}.")
    return chosen


@functools.lru_cache(maxsize=8)
def _all_pairs(layout: PairLayout, root: Path, inner: str) -> list[tuple[Path, Path]]:
    places = root / "images" / inner, root / layout.labels / inner
    suffixes = (IMAGE_SUFFIXES, _MAP_SUFFIXES)
    what = f"of {layout.kind}:{root}"
    images, maps = (
        _by_stem(place, kinds, what) for place, kinds in zip(places, suffixes, strict=True)
    )
    alone = [str(path) for stem, path in images.items() if stem not in maps]
    alone += [str(path) for stem, path in maps.items() if stem not in images]
    _refuse(f"Files {what} have no partner of their name", alone)
    return [(path, maps[stem]) for stem, path in images.items()]


def _by_stem(place: Path, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
    (names,) = FolderTree(place, suffixes).files_of("", [""]) if place.is_dir() else ([],)
    found: dict[str, Path] = {}
    twice = []
    for name in names:
        stem, path = str(Path(name).with_suffix("")), place / name
        if stem in found:
            twice.append(f"{found[stem]} and {path}")
        found[stem] = path
    _refuse(f"Files {what} differ in their suffix alone, and pairs are told by the rest", twice)
    return found


def _size_of(path: Path) -> tuple[int, int] | None:
    return read_header(path, upright_size)


class _Header(NamedTuple):
    """What the file of a label map states: height and width, None if unreadable; why it is none."""

    size: tuple[int, int] | None
    fault: str


def _header_of(path: Path) -> _Header:
    def describe(image: Image.Image) -> _Header:
        return _Header((image.height, image.width), find_format_fault(image))

    return read_header(path, describe) or _Header(None, "")


def _find_fault(of_image: tuple[int, int] | None, of_map: _Header) -> str:
    """Return what shows in the headers of a pair, or ""."""
    if of_map.fault or not of_image or not of_map.size or of_image == of_map.size:
        return of_map.fault
    rows, columns = of_map.size
    return f"{rows} x {columns} rows and columns, its image has {of_image[0]} x {of_image[1]}"


def _spread(indices: list[int], sizes: Sequence[tuple[int, int] | None]) -> list[int]:
    """Return the maps that are read whole: all where they are few or small."""
    pixels = sum(size[0] * size[1] for index in indices if (size := sizes[index]))
    share = min(1.0, _PROBED_PIXELS / max(pixels, 1))
    count = min(len(indices), max(_LEAST_PROBED, int(share * len(indices))))
    return [indices[place] for place in np.linspace(0, len(indices) - 1, count).astype(int)]


def _read_class_names(layout: PairLayout, root: Path, num_classes: int) -> tuple[str, ...]:
    file = root / layout.classes
    if not file.exists():
        count = layout.num_classes or num_classes
        if count > IGNORED_LABEL:
            raise ValueError(f"{root}: {count} classes are asked for, {_MOST}.")
        return tuple(f"class {n}" for n in range(count))
    try:
        text = read_plain_file(file).decode("utf-8-sig")
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as text in UTF-8: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if layout.kind == "ade20k":
        # A table: number, three figures, names.
        names: Sequence[Any] = [line.split("\t")[-1].split(",")[0] for line in lines[1:]]
    else:
        names = lines
    if layout.num_classes and len(names) != layout.num_classes:
        raise ValueError(f"{file} names {len(names)} classes, not {layout.num_classes}.")
    if len(names) > IGNORED_LABEL:
        raise ValueError(f"{file} names {len(names)} classes, {_MOST}.")
    return tuple(readable(str(name).strip()) for name in names)


def _refuse(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise ValueError(f"{what}:{list_lines(problems)}")
