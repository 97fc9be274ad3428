"""Where the images of a cell may lie: official folders and tars below a data folder.

Names are compared without regard to case, "-", "_" and ".": ``ImageNet-C``, ``imagenet_c`` and
``imagenetc`` are one. A path may begin at the data folder or, when that is named like the set,
inside it.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lska_jax.data.class_folders import SPLIT_SYNONYMS
from lska_jax.data.image_tree import ImageTree, TarTree, open_tree
from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.real_labels import VALIDATION_NAME

VIDEO_SUFFIXES = (".mp4",)

# How the five official archives of ImageNet-C share the corruptions out.
_C_GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
_GROUP_OF = {part: group for group, parts in _C_GROUPS.items() for part in parts}
_P_GROUPS = ("noise", "blur", "weather", "digital")
_V2_FOLDERS = {
    "matched-frequency": "imagenetv2-matched-frequency-format-val",
    "threshold-0.7": "imagenetv2-threshold0.7-format-val",
    "top-images": "imagenetv2-top-images-format-val",
}
_ROOTS = {
    "imagenet": ("imagenet", "imagenet2012", "imagenet1k", "ilsvrc2012", "ilsvrc"),
    "imagenet_c": ("imagenet-c",),
    "imagenet_c_bar": ("imagenet-c-bar", "cbar_download"),
    "imagenet_a": ("imagenet-a",),
    "imagenet_r": ("imagenet-r",),
    "imagenet_sketch": ("imagenet-sketch", "sketch"),
    "imagenet_o": ("imagenet-o",),
    "imagenet_p": ("imagenet-p",),
    "cue_conflict": (
        *("cue-conflict", "cue_conflict_subset", "style-transfer-preprocessed-512"),
        *("texture-vs-shape/stimuli/style-transfer-preprocessed-512",),
        *("texture-vs-shape-master/stimuli/style-transfer-preprocessed-512",),
    ),
}
_VALIDATION_FOLDERS = ("val", "validation", "ILSVRC2012_img_val", "Data/CLS-LOC/val")
_TARS = ("ILSVRC2012_img_val.tar", "val.tar")
# Files that hold a set but allow no random access.
_PACKED_SUFFIXES = (".zip", ".tar.gz", ".tgz")
# An archive's own top folder and one around it.
_MAX_WRAPPERS = 3


class MissingSet(ValueError):
    """Raised for a cell without images; the message, one line, says where to get them."""


class Layout(NamedTuple):
    """Where a cell may lie, below a data folder.

    Attributes:
      folders: paths of its class folders.
      archives: paths of tars, and the folder inside that holds its class folders.
      tried: all of these in short, for a person.
      wraps: whether class folders may lie deeper than where the paths lead.
    """

    folders: tuple[str, ...]
    archives: tuple[tuple[str, str], ...]
    tried: str
    wraps: bool


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
    cell: Cell,
    data_root: Path,
    *,
    is_class: Callable[[str], bool],
    suffixes: tuple[str, ...],
) -> Search:
    """Look for a cell's official folder or tar.

    Args:
      cell: the cell.
      data_root: the data folder.
      is_class: tells whether a folder's name looks like a class of the set.
      suffixes: how names of images end.

    Raises:
      ValueError: a tar that may hold it is compressed or cannot be read.
    """
    layout = cell_layout(cell)
    empty = []
    for place in _candidates(layout, data_root, suffixes):
        for inner in _possible_roots(place, layout.wraps):
            if any(map(is_class, place.tree.folders(inner))) or _holds_validation_images(
                place.tree, inner, cell
            ):
                return Search(Place(place.tree, inner), (), (), "")
        empty.append(place.name)
    return Search(None, tuple(empty), _packed_files(layout, data_root), layout.tried)


def cell_layout(cell: Cell) -> Layout:
    """Return where a cell of the catalogue may lie."""
    if cell.set in ("imagenet", "imagenet_real"):
        return _imagenet_layout()
    if cell.set == "imagenet_v2":
        folder = _V2_FOLDERS[cell.part]
        roots = (folder, f"imagenet-v2/{folder}", f"imagenet-v2/{cell.part}")
        tars = (*roots, folder.removesuffix("-format-val"))
        return Layout(
            roots,
            tuple((f"{tar}.tar", "") for tar in tars),
            f"{', '.join(roots)} and tars of these names",
            wraps=True,
        )
    if cell.set in ("imagenet_c", "imagenet_c_bar", "imagenet_p"):
        return _layout_of_parts(cell)
    names = _ROOTS[cell.set]
    return Layout(
        names,
        tuple((f"{name}.tar", "") for name in names),
        f"{', '.join(names)} and tars of {'these names' if len(names) > 1 else 'this name'}",
        wraps=True,
    )


def _imagenet_layout() -> Layout:
    roots, folders = _ROOTS["imagenet"], _VALIDATION_FOLDERS
    tars = tuple(f"{prefix}{name}" for prefix in ("", *(f"{r}/" for r in roots)) for name in _TARS)
    return Layout(
        (*(f"{root}/{folder}" for root in roots for folder in folders), *folders),
        (*((tar, "") for tar in tars), *((f"{root}.tar", "val") for root in roots)),
        f"{_braces(folders)} and {_braces(_TARS)} in {_braces(('.', *roots))}",
        wraps=False,
    )


def _layout_of_parts(cell: Cell) -> Layout:
    roots, groups = _ROOTS[cell.set], archive_groups(cell)
    inner = f"{cell.part}/{cell.severity}" if cell.severity else cell.part
    folders = [f"{root}/{inner}" for root in roots]
    folders += [f"{root}/{group}/{inner}" for root in roots for group in groups]
    tars = [f"{root}/{name}.tar" for root in roots for name in (*groups, cell.part)]
    tars += [f"{root}.tar" for root in roots]
    if cell.set == "imagenet_c":
        # ImageNet-P has archives of the same names: loose ones are taken to be ImageNet-C's.
        tars += [f"{group}.tar" for group in groups]
    tried = ", ".join((*folders, *tars))
    return Layout(tuple(folders), tuple((tar, inner) for tar in tars), tried, wraps=False)


def archive_groups(cell: Cell) -> tuple[str, ...]:
    """Return the official archives, such as "noise", that may hold a cell; none elsewhere."""
    if cell.set == "imagenet_c":
        return (_GROUP_OF[cell.part],)
    if cell.set == "imagenet_p":
        # Those that ImageNet-C has not are geometry. The likely archive is scanned first.
        likely = _GROUP_OF.get(cell.part, "digital")
        return (likely, *(group for group in _P_GROUPS if group != likely))
    return ()


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
            if name not in SPLIT_SYNONYMS[0]
        ]


def _holds_validation_images(tree: ImageTree, inner: str, cell: Cell) -> bool:
    if cell.set not in ("imagenet", "imagenet_real"):
        return False
    return any(map(VALIDATION_NAME.fullmatch, tree.files(inner)))


def _packed_files(layout: Layout, data_root: Path) -> tuple[str, ...]:
    stems = {tar.removesuffix(".tar") for tar, _ in layout.archives}
    return tuple(
        str(file)
        for stem in sorted(stems)
        for suffix in _PACKED_SUFFIXES
        for file in _resolve(data_root, stem + suffix)
        if file.is_file()
    )


def _braces(names: tuple[str, ...]) -> str:
    return f"{{{','.join(names)}}}"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lower())
