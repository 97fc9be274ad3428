"""Class folders inside an uncompressed tar as a source.

The layout is that of ``class_folders``, also below one leading folder, as ``tar cf cifar10.tar
cifar10/`` makes it; ``tar_tree`` reads the archive.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lska_jax.data.class_folders import (
    check_no_class_is_empty,
    is_split_name,
    missing_split_message,
    no_class_message,
)
from lska_jax.data.listed_source import ListedSource
from lska_jax.data.tar_tree import TarFiles, TarReader


class TarSource(ListedSource):
    """The images of class folders inside a tar."""

    def __init__(self, path: Path, *, split: str) -> None:
        """Scan the headers, or reuse this process's earlier scan of the same file.

        Args:
          path: an existing file.
          split: the split to read.

        Raises:
          ValueError: if the file is compressed, no tar or cut short, or if the split is missing,
            there is no class, or a class has no image.
        """
        reader = TarReader(path)
        images, folders = reader.index()
        root = _find_root(f"folder:{path}", folders, split)
        name = f"folder:{path}" + (f"!{root.rstrip('/')}" if root else "")

        class_names = sorted(name for name in folders[root] if not name.startswith("."))
        if not class_names:
            raise ValueError(no_class_message(name))
        label_of = {name: label for label, name in enumerate(class_names)}
        # By label first: sorting by full name would put "cat-big/" before "cat/".
        chosen = sorted(
            (label_of[class_name], member)
            for member in images
            if member.name.startswith(root)
            and (class_name := _first_folder(member.name[len(root) :])) in label_of
        )
        labels = np.array([label for label, _ in chosen], np.int32)
        check_no_class_is_empty(
            name, class_names, np.bincount(labels, minlength=len(class_names)).tolist()
        )
        members = [member for _, member in chosen]
        super().__init__(name, TarFiles(reader, members), labels, class_names)


def _find_root(name: str, folders: Mapping[str, frozenset[str]], split: str) -> str:
    """Find the folder that holds the classes: "" or a path that ends in "/"."""
    top = folders[""]
    roots = [""]
    if len(top) == 1:
        roots.append(f"{next(iter(top))}/")
    for root in roots:
        if split in folders.get(root, ()) and folders.get(f"{root}{split}/"):
            return f"{root}{split}/"
    for root in roots:
        others = [
            n for n in folders.get(root, ()) if is_split_name(n) and folders.get(f"{root}{n}/")
        ]
        if others:
            raise ValueError(missing_split_message(name, split, others))
    # One top folder that holds folders is a wrapper; one that holds images is a single class.
    return roots[-1] if folders.get(roots[-1]) else ""


def _first_folder(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""
