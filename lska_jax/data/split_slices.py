"""Read what names a split or slices of it: ``train``, ``train[:80%]``, ``train[:1000]+extra``.

The syntax is TFDS's (https://www.tensorflow.org/datasets/splits).
"""

import hashlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lska_jax.data.sources import Extent

_SLICING_SEED = b"lska_jax"
_PART = re.compile(
    r"(?P<split>[^\[\]+]*[^\[\]+\s])(\[(?P<start>[^:\]]*)(?P<colon>:?)(?P<stop>[^:\]]*)\])?"
)
_BOUND = re.compile(r"(?P<value>-?[\d_.]+)(?P<unit>%|shard)?")


class Slice(NamedTuple):
    """A split, or a part of it.

    Attributes:
      split: its name.
      start: number of the first example, of its share in percent or of its shard, or "".
      stop: the same of the first one that is not part of it.
      unit: "", "%" or "shard".
      is_whole: whether nothing was cut off.
    """

    split: str
    start: str = ""
    stop: str = ""
    unit: str = ""
    is_whole: bool = True


def parse_slices(text: str) -> list[Slice]:
    """Return the parts of a split that a text names; several are joined by "+".

    Raises:
      ValueError: it cannot be read.
    """
    return [_parse(part) for part in re.split(r"\s*\+\s*", text.strip())]


def slice_bounds(part: Slice, lengths: tuple[int, ...]) -> tuple[int, int]:
    """Return the first example of a slice and the one after its last, as TFDS counts them.

    Percentages go to the nearest example.

    Args:
      part: the slice.
      lengths: number of examples in each shard of the split.

    Raises:
      ValueError: a bound lies outside the examples.
    """
    total = sum(lengths)
    begin = _to_position(part.start, part.unit, lengths) if part.start else 0
    end = _to_position(part.stop, part.unit, lengths) if part.stop else total
    return begin, max(begin, end)


def slice_classes(
    part: Slice, whole: Extent, files: Sequence[Sequence[str]]
) -> tuple[Extent, np.ndarray]:
    """Return which images a slice keeps, each class losing the same share.

    The images of a class are put in an order that their names and a fixed seed decide.

    Args:
      part: the slice.
      whole: what it is cut from.
      files: names of the images of each class.

    Returns:
      The slice's extent in that order, and the positions of its images among all, sorted.

    Raises:
      ValueError: a bound lies outside, or is in shards.
    """
    if part.unit == "shard":
        raise ValueError(f"{whole.place} has no shards; give bounds in percent or images.")
    # Where an image stands in its class, from 0 to 1.
    places = np.concatenate([(drawn_ranks(names) + 0.5) / max(len(names), 1) for names in files])
    begin, end = slice_bounds(part, (len(places),))
    kept = np.sort(np.argsort(places, kind="stable")[begin:end])
    return Extent(whole.place, begin, end), kept


def describe_slice(part: Slice) -> str:
    """Return what stands behind the name of a split, as in "[:80%]"."""
    bounds = [f"{bound}{part.unit}" if bound else "" for bound in (part.start, part.stop)]
    return f"[{':'.join(bounds)}]"


def drawn_ranks(names: Sequence[str]) -> np.ndarray:
    """Return each file's place in an order that its name, without folders, and a seed decide."""
    keys = [
        hashlib.blake2b(os.fsencode(os.path.basename(name)), key=_SLICING_SEED, digest_size=8)
        for name in names
    ]
    order = np.argsort([int.from_bytes(key.digest(), "big") for key in keys], kind="stable")
    ranks = np.empty(len(names), np.int64)
    ranks[order] = np.arange(len(names))
    return ranks


def _parse(text: str) -> Slice:
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError(
            f"Cannot read the split {text!r}; write 'train', 'train[:80%]' or 'train[100:200]'."
        )
    name = match["split"]
    if match["start"] is None:
        return Slice(name)
    bounds = [_BOUND.fullmatch(match[side]) for side in ("start", "stop")]
    if any(
        match[side] and not bound for side, bound in zip(("start", "stop"), bounds, strict=True)
    ):
        raise ValueError(f"Cannot read the slice in {text!r}; bounds are 100, 80% or 3shard.")
    unit = next((bound["unit"] for bound in bounds if bound and bound["unit"]), "")
    start, stop = (bound["value"] if bound else "" for bound in bounds)
    if not match["colon"]:
        if unit != "shard" or not start:
            raise ValueError(
                f"{text!r}: only a shard can be chosen by one number, as 'train[0shard]'."
            )
        stop = str(int(start) + 1) if start != "-1" else ""
    return Slice(name, start, stop, unit, is_whole=False)


def _to_position(bound: str, unit: str, lengths: tuple[int, ...]) -> int:
    total = sum(lengths)
    if unit == "shard":
        return sum(lengths[: int(bound)])
    position = round(float(bound) * total / 100) if unit == "%" else int(bound)
    if abs(position) > total:
        raise ValueError(f"The slice bound {bound}{unit} lies outside the {total:,} examples.")
    return position + total if position < 0 else position
