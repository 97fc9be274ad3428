"""Tiny sets laid out as their authors lay them out, as {path: content}; content is never decoded.

Each official layout is written once, as a folder or inside a tar.
"""

from pathlib import Path

from tar_files import make_tar

from lska_jax.robustness.sets.label_sets import imagenet_wnids, subset_classes

WNIDS = imagenet_wnids()


def wnid_folders(prefix: str, labels, *, suffix: str = "JPEG") -> dict[str, bytes]:
    """One image for each label, its label as its content."""
    return {f"{prefix}/{WNIDS[label]}/a.{suffix}": b"%d" % label for label in labels}


def subset_folders(prefix: str, name: str, *, without: int = 0) -> dict[str, bytes]:
    labels = subset_classes(name).tolist()
    return wnid_folders(prefix, labels[without:], suffix="jpg")


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_tar(files))
    return path


def write_kind(kind: str, root: Path, name: str, files: dict[str, bytes]) -> Path:
    """Write files under a folder ``name`` of the root, or into ``name.tar``."""
    if kind == "folder":
        write_tree(root / name, files)
    else:
        write_tar(root / f"{name}.tar", files)
    return root


def read_labels(source) -> dict[bytes, int]:
    return {source[i].image: source[i].label for i in range(len(source))}
