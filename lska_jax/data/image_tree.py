"""A folder or an uncompressed tar seen alike: what lies in it, and the bytes of chosen files.

Paths inside are written with "/" and without one at the end; "" is the tree itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from lska_jax.data.class_folders import IMAGE_SUFFIXES
from lska_jax.data.folder_tree import FolderTree
from lska_jax.data.listed_source import FileList
from lska_jax.data.tar_tree import TarTree


@runtime_checkable
class ImageTree(Protocol):
    """Folders and the files of one kind in them.

    Attributes:
      place: the folder or archive, for a person.
    """

    place: str

    def folders(self, inner: str) -> list[str]:
        """Return the names of the visible folders in a folder, sorted; [] if it is not there."""

    def files(self, inner: str) -> list[str]:
        """Return the names of the files that lie loosely in a folder, sorted."""

    def files_of(self, inner: str, folders: Sequence[str]) -> list[list[str]]:
        """Return the files at any depth of each of some folders, relative to it and sorted."""

    def choose(self, inner: str, names: Sequence[str]) -> FileList:
        """Return the files of these names relative to a folder."""


def open_tree(location: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> ImageTree:
    """Open an existing folder, or a file as a tar.

    Args:
      location: a folder or file.
      suffixes: how names of wanted files end, in lower case; others are not seen.

    Raises:
      ValueError: there is neither, or the file is packed or compressed, no tar or damaged.
    """
    if location.is_dir():
        return FolderTree(location, suffixes)
    if location.is_file():
        return TarTree(location, suffixes)
    wrong = "is neither a folder nor a plain file" if location.exists() else "does not exist"
    raise ValueError(f"{location} {wrong}; give an existing folder or .tar file.")
