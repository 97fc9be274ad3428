"""Sets of the benchmark in their authors' folders: which file is which class."""

import functools
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lska_jax.data.class_folders import IMAGE_SUFFIXES
from lska_jax.data.image_tree import ListedSource
from lska_jax.data.sources import Source
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.catalogue import set_facts
from lska_jax.robustness.sets.cue_conflict import choose_shapes, parse_stimulus
from lska_jax.robustness.sets.label_sets import (
    SUBSETS,
    imagenet_wnids,
    shape_classes,
    subset_classes,
)
from lska_jax.robustness.sets.layouts import VIDEO_SUFFIXES, MissingSet, Place
from lska_jax.robustness.sets.real_labels import (
    find_real_file,
    read_real_labels,
    validation_number,
)
from lska_jax.robustness.sets.video import VideoSource

_WNID = re.compile(r"n\d{8}")
_V2_CLASS = re.compile(r"\d{1,3}")
_NUMBER = re.compile(r"\d+")
# Folders that archive programs leave behind.
_IGNORED_FOLDERS = frozenset({"__MACOSX", "@eaDir", "lost+found"})

Opened = tuple[Source, Mapping[str, np.ndarray], str]


def class_test(set_name: str) -> Callable[[str], bool]:
    """Return what tells whether a folder's name looks like a class of a set."""
    if set_name == "imagenet_v2":
        return lambda name: bool(_V2_CLASS.fullmatch(name))
    if set_name == "cue_conflict":
        return lambda name: name in shape_classes()
    return lambda name: bool(_WNID.fullmatch(name))


def suffixes_of(set_name: str) -> tuple[str, ...]:
    """Return how the names of a set's files end."""
    return IMAGE_SUFFIXES + VIDEO_SUFFIXES if set_name == "imagenet_p" else IMAGE_SUFFIXES


def open_official(
    cell: Cell, place: Place, data_root: Path, *, shapes: Sequence[str] | None = None
) -> Opened:
    """Open a cell where it was found.

    Args:
      cell: the cell.
      place: the folder of its class folders.
      data_root: the data folder, where ImageNet-ReaL's labels are looked for.
      shapes: as for ``sets.open_cell``.

    Returns:
      The images, facts of each example as ``sets.CellData`` has them, and what is missing.

    Raises:
      MissingSet: its folders hold no image.
      ValueError: a folder or a file is none of the set, or labels are wrong.
    """
    names, folders, note = _list_images(cell, place)
    if cell.set == "cue_conflict":
        return _open_cue_conflict(place, names, note, shapes)
    labels = _labels(cell, names, folders)
    if cell.set == "imagenet_p":
        return _open_sequences(place, names, labels, note)
    source = _source(place, names, labels, imagenet_wnids())
    extra: dict[str, np.ndarray] = {}
    if cell.set == "imagenet_o":
        extra = {"is_ood": np.ones(len(labels), bool)}
    if cell.set == "imagenet_real":
        file = find_real_file(data_root)
        if file is None:
            raise MissingSet(f"{cell}: there is no real.json in {data_root}.")
        extra = {"real_labels": read_real_labels(file, names)}
    return source, extra, note


def _list_images(cell: Cell, place: Place) -> tuple[list[str], list[str], str]:
    """List files in class order, with the class folder of each ("" for loose files)."""
    tree, inner = place
    classes = [name for name in tree.folders(inner) if name not in _IGNORED_FOLDERS]
    if not classes or not any(map(class_test(cell.set), classes)):
        return (loose := tree.files(inner)), [""] * len(loose), ""
    known = _known_classes(cell.set)
    if wrong := [name for name in classes if name not in known]:
        shown = ", ".join(map(repr, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise ValueError(
            f"{place.name}: {len(wrong)} of {len(classes)} folders are no class of "
            f"{set_facts(cell.set).title}: {shown}; move them elsewhere, or check that this is the "
            "set you mean."
        )
    if cell.set == "imagenet_v2":
        # As text 10 comes before 2.
        classes.sort(key=int)
    files = tree.files_of(inner, classes)
    missing = len(known) - sum(map(bool, files))
    note = f"{missing} of {len(known)} classes have no image" if missing else ""
    names = [
        f"{name}/{file}" for name, of_class in zip(classes, files, strict=True) for file in of_class
    ]
    folders = [name for name, of_class in zip(classes, files, strict=True) for _ in of_class]
    if not names:
        raise MissingSet(
            f"{cell} is empty: the {len(classes)} class folders in {place.name} hold no image"
        )
    return names, folders, note


def _known_classes(set_name: str) -> frozenset[str]:
    if set_name == "cue_conflict":
        return frozenset(shape_classes())
    if set_name == "imagenet_v2":
        return frozenset(map(str, range(len(imagenet_wnids()))))
    if set_name in SUBSETS:
        return frozenset(imagenet_wnids()[label] for label in subset_classes(set_name))
    return frozenset(imagenet_wnids())


def _labels(cell: Cell, names: Sequence[str], folders: Sequence[str]) -> np.ndarray:
    if cell.set == "imagenet_o":
        return np.zeros(len(names), np.int32)
    if cell.set == "imagenet_v2":
        return np.array([int(folder) for folder in folders], np.int32)
    label_of = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    if folders and not folders[0]:
        wnids = _validation_wnids()
        folders = [wnids[validation_number(name) - 1] for name in names]
    return np.array([label_of[folder] for folder in folders], np.int32)


@functools.cache
def _validation_wnids() -> tuple[str, ...]:
    """Return the class of each of the 50,000 validation images, in the order of their numbers.

    The list is TFDS's. The challenge's own kit numbers classes differently and is not read.
    """
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or spec.origin is None:
        raise ValueError(
            "Labels of loose validation images come from tensorflow-datasets; install it."
        )
    file = Path(spec.origin).parent / "datasets/imagenet2012/validation_labels.txt"
    return tuple(file.read_text(encoding="utf-8").split())


def _source(
    place: Place, names: Sequence[str], labels: np.ndarray, class_names: Sequence[str]
) -> ListedSource:
    files = place.tree.choose(place.inner, names)
    return ListedSource(f"folder:{place.name}", files, labels, class_names)


def _open_cue_conflict(
    place: Place, names: Sequence[str], note: str, shapes: Sequence[str] | None
) -> Opened:
    index = {name: number for number, name in enumerate(shape_classes())}
    pairs = []
    for name in names:
        folder, _, file = name.rpartition("/")
        shape, texture = parse_stimulus(file)
        if shape != folder.partition("/")[0]:
            raise ValueError(
                f"{place.name}/{name}: the folder says {folder!r}, the file's name {shape!r}; "
                "stimuli lie in the folder of their shape."
            )
        pairs.append((index[shape], index[texture]))
    shape_labels, textures = np.array(pairs, np.int32).T
    source = _source(place, names, shape_labels, tuple(index))
    chosen, extra = choose_shapes(source, shape_labels, textures, shapes)
    return chosen, extra, note


def _open_sequences(place: Place, names: Sequence[str], labels: np.ndarray, note: str) -> Opened:
    is_video = np.array([name.lower().endswith(VIDEO_SUFFIXES) for name in names])
    if is_video.any():
        videos = [name for name, video in zip(names, is_video, strict=True) if video]
        source = VideoSource(
            f"video:{place.name}",
            place.tree.choose(place.inner, videos),
            labels[is_video],
            imagenet_wnids(),
        )
        frames = source.frames_per_video
        extra = {
            "sequence": np.repeat(np.arange(len(videos), dtype=np.int32), frames),
            "frame": np.tile(np.arange(frames, dtype=np.int32), len(videos)),
        }
        return source, extra, note
    return _open_frames(place, names, labels, note)


def _open_frames(place: Place, names: Sequence[str], labels: np.ndarray, note: str) -> Opened:
    """Open sequences that are folders, frames in the order of the numbers in their names."""
    order = sorted(range(len(names)), key=lambda index: _natural(names[index]))
    names, labels = [names[index] for index in order], labels[order]
    folders = [name.rpartition("/")[0] for name in names]
    if loose := next((folder for folder in folders if "/" not in folder), None):
        raise ValueError(
            f"{place.name}/{loose} holds images of no sequence; frames are expected as "
            "WNID/SEQUENCE/FRAME.png, or videos as WNID/*.mp4."
        )
    sequences, sequence, counts = np.unique(folders, return_inverse=True, return_counts=True)
    if len(np.unique(counts)) > 1:
        short, usual = int(counts.argmin()), int(np.median(counts))
        raise ValueError(
            f"{place.name}/{sequences[short]} has {counts[short]} frames, others {usual}; all "
            "sequences must have as many."
        )
    source = _source(place, names, labels, imagenet_wnids())
    frame = np.tile(np.arange(counts[0], dtype=np.int32), len(counts))
    return source, {"sequence": sequence.astype(np.int32), "frame": frame}, note


def _natural(name: str) -> tuple[str, list[int], str]:
    """Order by folder, then by the numbers in the file's name."""
    folder, _, file = name.rpartition("/")
    return folder, [int(number) for number in _NUMBER.findall(file)], file
