"""COCO sets as a source: instances files beside image folders.

| In ``coco:PATH``, split ``train`` is | its images lie in the first of these that holds one |
|---|---|
| ``annotations/instances_train2017.json``, or without ``annotations/`` | ``train2017/``, \
``images/train2017/``, ``images/``, ``PATH`` itself |
| ``train/_annotations.coco.json`` | ``train/`` |

Splits go by the usual names (``split_names``), with or without a year, and what is read for another
name is said. ``train[:80%]`` and ``train[80%:]`` share no image: file names and a fixed seed
decide, as in class folders.
"""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lska_jax.data.class_folders import readable
from lska_jax.data.coco_file import CocoFile, load_coco_json, read_coco_file
from lska_jax.data.coco_masks import decode_mask
from lska_jax.data.decode import upright_size
from lska_jax.data.image_file import read_header
from lska_jax.data.long_lists import list_lines
from lska_jax.data.notes import say_once
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.scenes import ObjectImage
from lska_jax.data.sources import Extent, SourceFacts, check_index
from lska_jax.data.split_names import choose_split
from lska_jax.data.split_slices import (
    Slice,
    drawn_ranks,
    parse_slices,
    seed_words,
    slice_bounds,
)

_PREFIX = "instances_"
_INSIDE = "_annotations.coco.json"
# Of a split, from all over it: by how many images its folder is found, and how many are opened to
# compare their sizes with the file's.
_PROBED_NAMES, _PROBED_IMAGES = 20, 1024
_THREADS = 16
_SHOWN_CATEGORIES = 5


class _Place(NamedTuple):
    """Where a split is: its file, and folders that may hold its images."""

    file: Path
    folders: tuple[Path, ...]


class CocoSource:
    """The images of a COCO file with their objects; see ``scenes.ObjectSource``.

    Args:
      location: the folder that holds files and images; ``~`` is expanded.
      split: its name, or a slice of it.
      use_masks: whether masks are read.
      is_for_training: whether images that are not trained on are left out; see ``coco_file``.

    Raises:
      ValueError: there is no such folder or split, the file has faults, or images are missing or
        of another size.
    """

    def __init__(
        self, location: str, *, split: str, use_masks: bool = False, is_for_training: bool = False
    ) -> None:
        part, place = _find(location, split)
        self._file = read_coco_file(place.file, use_masks=use_masks)
        for remark in self._file.remarks:
            say_once(remark)
        whole = readable(f"coco:{place.file}")
        self._kept, self.extents = _choose(self._file, part, whole)
        self.name = whole if part.is_whole else f"{whole}[{_bounds(part)}]"
        if is_for_training:
            self._kept = self._kept[self._file.is_trained_on[self._kept]]
        if not len(self._kept):
            raise ValueError(f"{self.name} has no images" + " with boxes." * is_for_training)
        self._say_missing_categories(" to train on" * is_for_training)
        self._folder = self._find_folder(place)
        self._check_sizes()
        self.class_names = self._file.class_names

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._kept)

    def __getitem__(self, index: int) -> ObjectImage:
        """Return image ``index`` as it is stored, and its objects."""
        check_index(index, len(self), self.name)
        file, place = self._file, int(self._kept[index])
        objects = slice(*file.starts[place : place + 2].tolist())
        height, width = file.sizes[place].tolist()
        masks = None
        if file.segmentations is not None:
            masks = np.zeros((objects.stop - objects.start, height, width), bool)
            for mask, number in zip(masks, range(objects.start, objects.stop), strict=True):
                stored = json.loads(file.segmentations[number])
                mask[:] = decode_mask(stored, height=height, width=width)
        return ObjectImage(
            image=read_plain_file(self._file_of(index)),
            size=(height, width),
            boxes=file.boxes[objects],
            labels=file.labels[objects],
            masks=masks,
            position=index,
        )

    def path(self, index: int) -> str:
        """Return the path of the image; names that are no text are escaped."""
        check_index(index, len(self), self.name)
        return readable(str(self._file_of(index)))

    def image_id(self, index: int) -> int:
        """Return the image's id in the file."""
        return int(self._file.image_ids[self._kept[index]])

    def category_id(self, label: int) -> int:
        """Return the category's id in the file."""
        return self._file.category_ids[label]

    def annotations(self) -> dict[str, Any]:
        """Return the content of the file, of these images only."""
        content = load_coco_json(Path(self._file.path))
        kept = {self.image_id(index) for index in range(len(self))}
        images = [image for image in content["images"] if image["id"] in kept]
        annotations = [one for one in content["annotations"] if one["image_id"] in kept]
        return {**content, "images": images, "annotations": annotations}

    @property
    def sizes(self) -> np.ndarray:
        """Heights and widths of the images, (number of images, 2)."""
        return self._file.sizes[self._kept]

    @property
    def most_objects(self) -> int:
        """The largest number of objects in one image."""
        return int(np.diff(self._file.starts)[self._kept].max())

    def _file_of(self, index: int) -> Path:
        return self._folder / self._file.file_names[int(self._kept[index])]

    def _say_missing_categories(self, purpose: str) -> None:
        """Say which categories have no box in these images."""
        is_kept = np.zeros(len(self._file.image_ids), bool)
        is_kept[self._kept] = True
        labels = self._file.labels[np.repeat(is_kept, np.diff(self._file.starts))]
        names = self._file.class_names
        counts = np.bincount(labels, minlength=len(names))
        missing = [name for name, count in zip(names, counts, strict=True) if not count]
        if missing:
            more = ", ..." if len(missing) > _SHOWN_CATEGORIES else ""
            say_once(
                f"{self.name}: {len(missing)} of {len(names)} categories have no box{purpose}: "
                f"{', '.join(missing[:_SHOWN_CATEGORIES])}{more}."
            )

    def _find_folder(self, place: _Place) -> Path:
        """Return the folder of the images, each of which is there."""
        names = [self._file.file_names[index] for index in self._kept.tolist()]
        probed = names[:: max(1, len(names) // _PROBED_NAMES)]
        folder = max(place.folders, key=lambda folder: sum((folder / n).is_file() for n in probed))
        present = set(os.listdir(folder)) if folder.is_dir() else set()
        missing = [n for n in names if n not in present and not (folder / n).exists()]
        if missing:
            raise ValueError(
                f"{len(missing)} of the {len(names)} images of {place.file} are not in {folder}. "
                "Add them, or remove them and their annotations from the file:"
                + list_lines(missing)
            )
        return folder

    def _check_sizes(self) -> None:
        """Refuse images of another size than their annotations are for."""
        count = min(len(self), _PROBED_IMAGES)
        probed = np.linspace(0, len(self) - 1, count).astype(int).tolist()
        with ThreadPoolExecutor(_THREADS) as pool:
            sizes = list(
                pool.map(lambda index: read_header(self._file_of(index), upright_size), probed)
            )
        wrong = []
        for index, size in zip(probed, sizes, strict=True):
            stated = self.sizes[index].tolist()
            if size is not None and list(size) != stated:
                wrong.append(
                    f"image {self.image_id(index)}, {self.path(index)}: {size[0]} x {size[1]} rows "
                    f"and columns, its annotations are for {stated[0]} x {stated[1]}"
                )
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {count} images looked at have another size than "
                f"{self._file.path} states. Repair or remove these entries:" + list_lines(wrong)
            )


def inspect_coco(location: str, *, split: str, use_masks: bool = False) -> SourceFacts:
    """Count categories and images without looking for images; arguments are ``CocoSource``'s.

    Raises:
      ValueError: as ``CocoSource``.
    """
    part, place = _find(location, split)
    file = read_coco_file(place.file, use_masks=use_masks)
    kept, _ = _choose(file, part, str(place.file))
    return SourceFacts(len(file.class_names), len(kept))


def _find(location: str, split: str) -> tuple[Slice, _Place]:
    """Return the slice that a split is, and where it lies."""
    root = Path(location).expanduser()
    if not root.is_dir():
        raise ValueError(f"coco:{location}: there is no folder {root}.")
    parts = parse_slices(split)
    if len(parts) != 1:
        raise ValueError(f"coco:{location}: the split {split!r} joins several; name one.")
    places = _places(root)
    # "train2017" is asked for as "train", and as itself.
    plain = {re.sub(r"[-_]?\d{4}$", "", name) or name: name for name in places}
    asked = parts[0].split
    chosen = asked if asked in places else choose_split(asked, [*plain], where=str(root))
    if chosen is None:
        found = ", ".join(sorted(map(readable, places))) or "none"
        raise ValueError(
            f"coco:{location} has no split {asked!r}; splits found: {found}. A split is "
            f"{root}/annotations/{_PREFIX}SPLIT.json, with its images in {root}/SPLIT."
        )
    name = chosen if chosen in places else plain[chosen]
    if name != asked and chosen != asked:
        say_once(f"coco:{location} has no split {asked!r}; {readable(name)!r} is read for it.")
    return parts[0], places[name]


def _places(root: Path) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for folder in (root / "annotations", root):
        for file in sorted(folder.glob(f"{_PREFIX}*.json")):
            name = file.stem.removeprefix(_PREFIX)
            images = (root / name, root / "images" / name, root / "images", root)
            places.setdefault(name, _Place(file, images))
    for file in sorted(root.glob(f"*/{_INSIDE}")):
        places.setdefault(file.parent.name, _Place(file, (file.parent,)))
    return places


def _choose(file: CocoFile, part: Slice, whole: str) -> tuple[np.ndarray, tuple[Extent, ...]]:
    """Return which images a slice keeps, in the file's order."""
    count = len(file.image_ids)
    if part.is_whole:
        return np.arange(count), (Extent(whole, 0, count),)
    if part.unit == "shard":
        raise ValueError(f"{whole} has no shards; give bounds in percent or images.")
    begin, end = slice_bounds(part, (count,))
    ranks = drawn_ranks([file.file_names[index] for index in range(count)], seed=part.seed)
    return np.flatnonzero((ranks >= begin) & (ranks < end)), (Extent(whole, begin, end, part.seed),)


def _bounds(part: Slice) -> str:
    bounds = (f"{bound}{part.unit}" if bound else "" for bound in (part.start, part.stop))
    return ":".join(bounds) + seed_words(part.seed)
