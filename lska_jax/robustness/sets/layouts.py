"""Where the images of a cell may lie below a data folder: the usual layouts.

Paths are those of official folders and of tars; ``places`` looks for them.
"""

from collections.abc import Callable
from typing import NamedTuple

from lska_jax.robustness.cells import Cell

_VALIDATION_FOLDERS = ("val", "validation", "ILSVRC2012_img_val", "Data/CLS-LOC/val")
_VALIDATION_TARS = ("ILSVRC2012_img_val.tar", "val.tar")


class Layout(NamedTuple):
    """Where a cell may lie, below a data folder.

    Attributes:
      folders: paths of its class folders.
      archives: paths of tars, and the folder inside that holds its class folders.
      tried: all of these in short, for a person.
      wraps: whether class folders may lie deeper than where the paths lead.
      groups: official archives, such as "noise", that share the parts of the set out and may hold
        the cell.
    """

    folders: tuple[str, ...]
    archives: tuple[tuple[str, str], ...]
    tried: str
    wraps: bool
    groups: tuple[str, ...] = ()


LayoutOf = Callable[[Cell], Layout]


def named_folders(*names: str) -> LayoutOf:
    """Return the layout of a set that is one folder, or one tar, of any of these names."""
    layout = Layout(
        names,
        tuple((f"{name}.tar", "") for name in names),
        f"{', '.join(names)} and tars of {'these names' if len(names) > 1 else 'this name'}",
        wraps=True,
    )
    return lambda cell: layout


def validation_folders(*roots: str) -> LayoutOf:
    """Return the layout of ImageNet's validation images, in or beside folders of these names."""
    prefixes = ("", *(f"{root}/" for root in roots))
    tars = tuple(f"{prefix}{name}" for prefix in prefixes for name in _VALIDATION_TARS)
    below = tuple(f"{root}/{folder}" for root in roots for folder in _VALIDATION_FOLDERS)
    layout = Layout(
        (*below, *_VALIDATION_FOLDERS),
        (*((tar, "") for tar in tars), *((f"{root}.tar", "val") for root in roots)),
        f"{_braces(_VALIDATION_FOLDERS)} and {_braces(_VALIDATION_TARS)} in "
        f"{_braces(('.', *roots))}",
        wraps=False,
    )
    return lambda cell: layout


def folders_of_parts(
    *roots: str,
    groups: Callable[[str], tuple[str, ...]] = lambda part: (),
    has_loose_archives: bool = False,
) -> LayoutOf:
    """Return the layout PART or PART/SEVERITY, in folders or tars of these names.

    Args:
      *roots: names of the set's folder.
      groups: the official archives that may hold a part, the likeliest first.
      has_loose_archives: whether these archives are looked for in the data folder itself too.
    """

    def layout(cell: Cell) -> Layout:
        of_part = groups(cell.part)
        inner = f"{cell.part}/{cell.severity}" if cell.severity else cell.part
        folders = [f"{root}/{inner}" for root in roots]
        folders += [f"{root}/{group}/{inner}" for root in roots for group in of_part]
        tars = [f"{root}/{name}.tar" for root in roots for name in (*of_part, cell.part)]
        tars += [f"{root}.tar" for root in roots]
        if has_loose_archives:
            tars += [f"{group}.tar" for group in of_part]
        archives = tuple((tar, inner) for tar in tars)
        tried = ", ".join((*folders, *tars))
        return Layout(tuple(folders), archives, tried, wraps=False, groups=of_part)

    return layout


def _braces(names: tuple[str, ...]) -> str:
    return f"{{{','.join(names)}}}"
