"""Class folders as a source: ``SPLIT/CLASS/*.jpg`` in a folder or an uncompressed tar.

- ``PLACE/SPLIT`` is read, also under another name for the split (``split_names``), which is said.
  When other split folders exist, the split is missing: an error, never a guess. Otherwise PLACE
  itself holds the classes and every split reads the same images; ``Source.name`` then shows that
  two splits are one. One folder around all of it, as ``tar cf cifar10.tar cifar10/`` makes it, is
  entered.
- ``train[:80%]`` and ``train[80%:]`` cut a split in two (``split_slices``), each with its share of
  every class. The images of a class are put in an order that their names and a fixed seed decide,
  so slices that do not overlap share no image, and a new image moves hardly any other;
  ``train[:80%;seed=1]`` is another such order.
- Classes are the sorted folder names, and files are sorted within a class, so that labels and order
  are the same on every machine. Images may lie deeper inside a class folder.
- Beside a training split, a split has that one's classes: a class without an image here is said,
  a class that is not there is an error.
- Names that begin with a dot, and files that are no images by suffix, are ignored.
- ImageNet-C's ``PLACE/CORRUPTION/SEVERITY/WNID/*.JPEG`` is ``folder:PLACE/CORRUPTION/SEVERITY``.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lska_jax.data.class_folders import IMAGE_SUFFIXES, readable
from lska_jax.data.image_tree import ImageTree
from lska_jax.data.listed_source import ListedSource
from lska_jax.data.notes import say_once
from lska_jax.data.sources import Extent, MissingSplit
from lska_jax.data.split_names import choose_split, may_be_split, split_kind
from lska_jax.data.split_slices import Slice, describe_slice, parse_slices, slice_classes
from lska_jax.data.tar_tree import TarTree

# Folders around the split folders that are entered when there is nothing else.
_MAX_WRAPPERS = 3
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
_SHOWN_CLASSES = 5


class FolderSource(ListedSource):
    """The images of class folders, one file each."""

    def __init__(self, tree: ImageTree, *, split: str) -> None:
        """List the files; nothing is opened yet.

        Args:
          tree: an opened folder or tar.
          split: the split to read, or slices of it.

        Raises:
          ValueError: if the split is missing, cannot be read or has no image, or there is no
            class, or a class has no image.
        """
        listed = [_list_slice(tree, part) for part in _parts(tree, split)]
        class_names = listed[0].class_names
        for other in listed[1:]:
            if other.class_names != class_names:
                raise ValueError(_difference(other.name, listed[0].name, other, class_names))
        super().__init__(
            "+".join(part.name for part in listed),
            tree.choose("", [name for part in listed for name in part.files]),
            np.concatenate([part.labels for part in listed]),
            class_names,
            extents=[part.extent for part in listed],
        )


class _Listed(NamedTuple):
    """A split, or a slice of it.

    Attributes:
      name: what is read, for a person.
      files: paths in the tree.
      labels: (N,) int32, one for each file.
      class_names: in label order.
      extent: which part of the split they are.
    """

    name: str
    files: Sequence[str]
    labels: np.ndarray
    class_names: Sequence[str]
    extent: Extent


class _Found(NamedTuple):
    """Where the classes of a split lie.

    Attributes:
      folder: holds the class folders.
      training: the folder of the training split, or None where this one is it, or there is none.
    """

    folder: str
    training: str | None


def _parts(tree: ImageTree, split: str) -> list[Slice]:
    """Read what the split is called; a folder of exactly that name is no slice."""
    if not split or any(split in tree.folders(root) for root in _roots(tree)):
        return [Slice(split)]
    return parse_slices(split)


def _list_slice(tree: ImageTree, part: Slice) -> _Listed:
    found = _find_split(tree, part.split)
    name = _name_of(tree, found.folder)
    own = tree.folders(found.folder)
    if not own:
        raise ValueError(_no_class_message(tree, found.folder))
    training = tree.folders(found.training) if found.training else []
    classes = _match_classes(name, own, training)
    files = [
        [_join(found.folder, folder, file) for file in of_class] if folder else []
        for folder, of_class in zip(
            classes.values(), _files_of(tree, found.folder, list(classes.values())), strict=True
        )
    ]
    empty = [c for c, of_class in zip(classes, files, strict=True) if not of_class]
    _check_empty_classes(name, empty, len(classes), may_be_empty=bool(training))
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(names) for names in files])
    every = [file for of_class in files for file in of_class]
    extent = Extent(name, 0, len(every))
    if not part.is_whole:
        extent, kept = slice_classes(part, extent, files)
        every, labels = [every[n] for n in kept], labels[kept]
        name += describe_slice(part)
        if not every:
            raise ValueError(f"{name} has no images.")
    return _Listed(name, every, labels, list(classes), extent)


def _find_split(tree: ImageTree, split: str) -> _Found:
    """Find the folder that holds the classes of a split."""
    roots = _roots(tree)
    for root in roots:
        names = tree.folders(root)
        candidates = [name for name in names if may_be_split(name, split)]
        holders = [name for name in candidates if tree.folders(_join(root, name))]
        where = _name_of(tree, root)
        chosen = choose_split(split, holders, where=where) if split else None
        if chosen is not None:
            if chosen != split:
                say_once(f"{where} has no split {split!r}; {readable(chosen)!r} is read for it.")
            return _Found(_inner_split(tree, root, chosen), _training_split(tree, root, chosen))
        splits = [name for name in holders if split_kind(name)]
        # Folders of images that are all named like splits are no classes.
        is_flat = len(names) > 1 and all(map(split_kind, names))
        if splits or is_flat:
            raise MissingSplit(_missing_split_message(where, split, splits, names))
    return _Found(roots[-1], None)


def _roots(tree: ImageTree) -> list[str]:
    """Return the top, and the folders around the rest that are entered."""
    roots = [""]
    for _ in range(_MAX_WRAPPERS):
        names = tree.folders(roots[-1])
        if len(names) != 1:
            break
        inner = _join(roots[-1], names[0])
        # A folder that holds images, or that is named like a split, is a class or a split.
        if split_kind(names[0]) or not tree.folders(inner) or tree.files(inner):
            break
        roots.append(inner)
    return roots


def _inner_split(tree: ImageTree, root: str, chosen: str) -> str:
    """Return a split's folder; one that holds nothing but itself again is entered."""
    folder = _join(root, chosen)
    names = tree.folders(folder)
    if len(names) == 1 and split_kind(names[0]) == split_kind(chosen) is not None:
        inner = _join(folder, names[0])
        return inner if tree.folders(inner) else folder
    return folder


def _training_split(tree: ImageTree, root: str, chosen: str) -> str | None:
    others = [name for name in tree.folders(root) if split_kind(name) == "train"]
    if split_kind(chosen) == "train" or len(others) != 1:
        return None
    return _inner_split(tree, root, others[0])


def _match_classes(name: str, own: list[str], training: list[str]) -> dict[str, str]:
    """Return class names, in label order, and the folder of each here; "" where there is none."""
    if not training:
        return {folder: folder for folder in own}
    # File systems know two ways to write an accent.
    folders = {unicodedata.normalize("NFC", folder): folder for folder in own}
    classes = {c: folders.pop(unicodedata.normalize("NFC", c), "") for c in training}
    if folders:
        different = sorted([*folders.values(), *(c for c, folder in classes.items() if not folder)])
        raise ValueError(
            f"{name} and the training split beside it have different classes: "
            f"{_shown(different)}. Give the class folders of both the same names."
        )
    return classes


def _files_of(tree: ImageTree, folder: str, classes: Sequence[str]) -> Iterator[list[str]]:
    listed = iter(tree.files_of(folder, [name for name in classes if name]))
    for name in classes:
        yield next(listed) if name else []


def _check_empty_classes(
    name: str, empty: Sequence[str], num_classes: int, *, may_be_empty: bool
) -> None:
    """Say which classes have no image, or refuse them.

    Raises:
      ValueError: they may not be empty, or all of them are.
    """
    if not empty:
        return
    which = f"{len(empty)} of {num_classes} class folders hold no image: {_shown(empty)}"
    if not may_be_empty or len(empty) == num_classes:
        raise ValueError(
            f"{name}: {which}; add images ({' '.join(IMAGE_SUFFIXES)}), or remove these "
            "folders from every split."
        )
    say_once(f"{name}: {which}. They count as classes, as in the training split.")


def _name_of(tree: ImageTree, folder: str) -> str:
    separator = "!" if isinstance(tree, TarTree) else "/"
    return readable(f"folder:{tree.place}" + (f"{separator}{folder}" if folder else ""))


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _missing_split_message(
    where: str, split: str, splits: Sequence[str], names: Sequence[str]
) -> str:
    if split_kind(split) in map(split_kind, names) or not splits:
        found = ", ".join(readable(name) for name in sorted(names))
        message = f"{where} has the folders {found}, which are named like splits, but "
        return message + f"no class folders in {split!r}; images are expected as CLASS/image.jpg."
    return (
        f"{where} has no split {split!r}; it holds the splits: "
        f"{', '.join(readable(name) for name in sorted(splits))}. Ask for one of them, or for two "
        f"parts of one, such as '{sorted(splits)[-1]}[:80%]' and '{sorted(splits)[-1]}[80%:]'."
    )


def _no_class_message(tree: ImageTree, folder: str) -> str:
    name = _name_of(tree, folder)
    loose = tree.files(folder)
    message = f"{name} holds no class folders" if loose else f"{name} is empty: it has no class"
    message += "; images are expected as CLASS/image.jpg below it"
    if loose:
        message += f", and {len(loose):,} lie loosely in it"
    place = os.path.join(tree.place, folder)
    packed = sorted(os.listdir(place)) if os.path.isdir(place) else []
    if packed := [name for name in packed if name.lower().endswith(_ARCHIVE_SUFFIXES)]:
        message += f". Unpack {_shown(packed)} first, or give a .tar itself"
    return f"{message}."


def _difference(name: str, other: str, listed: _Listed, class_names: Sequence[str]) -> str:
    different = sorted(set(listed.class_names) ^ set(class_names))
    return f"{name} and {other} have different classes: {_shown(different)}."


def _shown(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN_CLASSES else ""
    return ", ".join(map(readable, names[:_SHOWN_CLASSES])) + more
