"""Look for the images of a cell: official folders and tars below a data folder.

Names are compared without regard to case, "-", "_" and ".": ``ImageNet-C``, ``imagenet_c`` and
``imagenetc`` are one. A path may begin at the data folder or, when that is named like the set,
inside it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lska_jax.data.image_tree import ImageTree, open_tree
from lska_jax.data.split_names import split_kind
from lska_jax.data.tar_tree import TarTree
from lska_jax.robustness.sets.class_folders import ClassFolders
from lska_jax.robustness.sets.layouts import Layout

# Files that hold a set but allow no random access.
_PACKED_SUFFIXES = (".zip", ".tar.gz", ".tgz")
# An archive's own top folder and one around it.
_MAX_WRAPPERS = 3


class Place(NamedTuple):
    """Where a cell lies.

    Attributes:
      tree: folder or tar.
      inner: the folder in it that holds the class folders, or the images themselves.
    """

    tree: ImageTree
    inner: str

    @property
    def name(self) -> str:
        """What a person can look for."""
        if not self.inner:
            return self.tree.place
        separator = "!" if isinstance(self.tree, TarTree) else "/"
        return f"{self.tree.place}{separator}{self.inner}"


class Search(NamedTuple):
    """What a search for a cell met.

    Attributes:
      place: where its class folders or images are; None: nowhere.
      empty: places that exist and hold none.
      packed: files that have to be unpacked first.
      tried: every path looked for, as one text.
    """

    place: Place | None
    empty: tuple[str, ...]
    packed: tuple[str, ...]
    tried: str


def find_place(
    layout: Layout, data_root: Path, *, classes: ClassFolders, suffixes: tuple[str, ...]
) -> Search:
    """Look for a cell's official folder or tar.

    Args:
      layout: where the cell may lie.
      data_root: the data folder.
      classes: how the set's class folders are named.
      suffixes: how names of images end.

    Raises:
      ValueError: a tar that may hold it is compressed or cannot be read.
    """
    empty = []
    for place in _candidates(layout, data_root, suffixes):
        for inner in _possible_roots(place, layout.wraps):
            if _holds_images(place.tree, inner, classes):
                return Search(Place(place.tree, inner), (), (), "")
        empty.append(place.name)
    return Search(None, tuple(empty), _packed_files(layout, data_root), layout.tried)


def _candidates(layout: Layout, data_root: Path, suffixes: tuple[str, ...]) -> Iterator[Place]:
    """Yield the folders and the folders in tars that exist."""
    for path in layout.folders:
        for folder in _resolve(data_root, path):
            if folder.is_dir():
                yield Place(open_tree(folder, suffixes), "")
    for path, inner in layout.archives:
        for tar in _resolve(data_root, path):
            if tar.is_file():
                tree = TarTree(tar, suffixes)
                yield from (Place(tree, found) for found in _folders_in_tar(tree, inner))


def _resolve(data_root: Path, path: str) -> Iterator[Path]:
    """Yield the paths below the data folder, or at it, that a path means."""
    parts = path.split("/")
    yield from _descend(data_root, parts)
    if len(parts) > 1 and _plain(data_root.absolute().name) == _plain(parts[0]):
        yield from _descend(data_root, parts[1:])
    elif len(parts) == 1 and _plain(data_root.absolute().name) == _plain(path):
        yield data_root


def _descend(folder: Path, parts: list[str]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    if not folder.is_dir():
        return
    wanted = _plain(parts[0])
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _plain(entry.name) == wanted)
    # The name as it is written comes first, where several are alike.
    for name in sorted(names, key=lambda name: name != parts[0]):
        yield from _descend(folder / name, parts[1:])


def _folders_in_tar(tree: TarTree, inner: str) -> list[str]:
    """Return the folders whose path ends like the wanted one; without one, the top."""
    if not inner:
        return [""]
    wanted = [_plain(part) for part in inner.split("/")]
    return [
        path
        for path in tree.all_folders()
        if path and [_plain(part) for part in path.split("/")[-len(wanted) :]] == wanted
    ]


def _possible_roots(place: Place, wraps: bool) -> Iterator[str]:
    """Yield the folder itself and, level by level, those in it that may wrap the classes."""
    level = [place.inner]
    # The top folder of an archive is a wrapper even where folders may have none.
    depth = _MAX_WRAPPERS if wraps else int(isinstance(place.tree, TarTree) and not place.inner)
    for _ in range(depth + 1):
        yield from level
        level = [
            f"{inner}/{name}" if inner else name
            for inner in level
            for name in place.tree.folders(inner)
            if split_kind(name) != "train"
        ]


def _holds_images(tree: ImageTree, inner: str, classes: ClassFolders) -> bool:
    if any(map(classes.is_one, tree.folders(inner))):
        return True
    loose = classes.loose
    return loose is not None and any(map(loose.is_one, tree.files(inner)))


def _packed_files(layout: Layout, data_root: Path) -> tuple[str, ...]:
    stems = {tar.removesuffix(".tar") for tar, _ in layout.archives}
    return tuple(
        str(file)
        for stem in sorted(stems)
        for suffix in _PACKED_SUFFIXES
        for file in _resolve(data_root, stem + suffix)
        if file.is_file()
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lower())
