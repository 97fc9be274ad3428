"""Class folders as a source: ``SPLIT/CLASS/*.jpg``; the layout is that of ``class_folders``."""

from pathlib import Path

import numpy as np

from lska_jax.data.class_folders import (
    IMAGE_SUFFIXES,
    check_no_class_is_empty,
    is_image_name,
    is_split_name,
    missing_split_message,
    no_class_message,
)
from lska_jax.data.folder_tree import FolderTree, visible_entries
from lska_jax.data.listed_source import ListedSource


class FolderSource(ListedSource):
    """The images of class folders, one file each."""

    def __init__(self, path: Path, *, split: str) -> None:
        """List the files; nothing is opened yet.

        Args:
          path: an existing folder.
          split: the split to read.

        Raises:
          ValueError: if the split is missing, or there is no class, or a class has no image.
        """
        root = _find_split(path, split)
        name = f"folder:{root}"
        tree = FolderTree(root, IMAGE_SUFFIXES)
        class_names = tree.folders("")
        if not class_names:
            raise ValueError(no_class_message(name))
        files = tree.files_of("", class_names)
        check_no_class_is_empty(name, class_names, [len(names) for names in files])
        names = [
            f"{folder}/{file}"
            for folder, of_class in zip(class_names, files, strict=True)
            for file in of_class
        ]
        labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(f) for f in files])
        super().__init__(name, tree.choose("", names), labels, class_names)


def _find_split(path: Path, split: str) -> Path:
    if split and (path / split).is_dir():
        return path / split
    folders = [entry.name for entry in visible_entries(path) if entry.is_dir()]
    others = [n for n in folders if is_split_name(n) and _holds_only_folders(path / n)]
    if others:
        raise ValueError(missing_split_message(f"folder:{path}", split, others))
    return path


def _holds_only_folders(folder: Path) -> bool:
    entries = visible_entries(folder)
    return any(e.is_dir() for e in entries) and not any(is_image_name(e.name) for e in entries)
