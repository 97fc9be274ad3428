"""Which images of a cell were seen, in an order that does not depend on how they are stored."""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from lska_jax.data.loader import HostBatch
from lska_jax.robustness.sets.opening import CellData

# The last part of what ``Source.path`` returns: of a file, an archive's member, a TFDS example.
_FILE_NAME = re.compile(r"[^/!#()\s]+")


class SeenImages(NamedTuple):
    """Which images a pass over a cell counted.

    Attributes:
      is_counted: (rows,) bool over the rows of all batches; False for padding and broken images.
      indices: (N,) of the counted images in the source.
      labels: (N,) of the counted images.
      num_broken: images that could not be decoded.
    """

    is_counted: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    num_broken: int


def join_rows(rows: Sequence[dict[str, jax.Array]]) -> SeenImages:
    """Return what the batches of a pass counted; they hold "label", "mask" and "index"."""
    host = jax.device_get(list(rows))
    label, mask, index = (
        np.concatenate([batch[name] for batch in host]) for name in ("label", "mask", "index")
    )
    return SeenImages(mask, index[mask], label[mask], int(np.sum(~mask & (index >= 0))))


def order_by_name(data: CellData, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of the images by file name, and eight bytes that tell which they are.

    The same images are stored in several orders: by class, or by number in the official archive.
    """
    names = [_FILE_NAME.findall(data.source.path(int(index)))[-1] for index in indices]
    order = np.argsort(np.array(names), kind="stable")
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).digest()
    return order, np.frombuffer(digest[:8], np.uint8)


def facts_of(data: CellData) -> dict[str, np.ndarray]:
    """Return what the set says of each image, and of frames how many their sequence has."""
    facts = dict(data.extra)
    if "sequence" in facts:
        facts["sequence_length"] = np.bincount(facts["sequence"])[facts["sequence"]]
    return facts


def check_labels(batch: HostBatch, data: CellData) -> None:
    """Refuse labels that are no class of the set.

    Raises:
      ValueError: there is one; the first is named.
    """
    labels, count = batch["label"], len(data.source.class_names)
    wrong = batch["mask"] & ((labels < 0) | (labels >= count))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{data.source.path(int(batch['index'][row]))} has label {labels[row]}, outside the "
            f"{count} classes of the set; repair the data, or leave the set out."
        )
