"""Read what names a split or slices of it: ``train``, ``train[:80%]``, ``train[:1000]+extra``.

The syntax is TFDS's (https://www.tensorflow.org/datasets/splits). Where names decide which images
a slice has, a seed makes another draw of them: ``train[:80%;seed=3]``.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lska_jax.data.sources import Extent

_SLICING_SEED = b"lska_jax"
# Of a key of 64 bytes.
_MAX_SEED_DIGITS = 20
_PART = re.compile(
    r"(?P<split>[^\[\]+]*[^\[\]+\s])(\[(?P<start>[^:;\]]*)(?P<colon>:?)(?P<stop>[^:;\]]*)(;\s*seed=(?P<seed>\d+)\s*)?\])?"
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
      seed: of the order that the images are cut in.
    """

    split: str
    start: str = ""
    stop: str = ""
    unit: str = ""
    is_whole: bool = True
    seed: int = 0


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

    The images of a class are put in an order that their names and the slice's seed decide.

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
    places = np.concatenate(
        [(drawn_ranks(names, seed=part.seed) + 0.5) / max(len(names), 1) for names in files]
    )
    begin, end = slice_bounds(part, (len(places),))
    kept = np.sort(np.argsort(places, kind="stable")[begin:end])
    return Extent(whole.place, begin, end, part.seed), kept


def describe_slice(part: Slice) -> str:
    """Return what stands behind the name of a split, as in "[:80%]"."""
    bounds = [f"{bound}{part.unit}" if bound else "" for bound in (part.start, part.stop)]
    return f"[{':'.join(bounds)}{seed_words(part.seed)}]"


def seed_words(seed: int) -> str:
    """Return what stands behind the bounds of a slice for a seed; nothing for 0."""
    return f";seed={seed}" if seed else ""


def refuse_seed(parts: Sequence[Slice], where: str) -> None:
    """Refuse a seed where slices follow the order of the data.

    Raises:
      ValueError: a slice has one.
    """
    if any(part.seed for part in parts):
        raise ValueError(
            f"{where} is cut in the order in which its examples are stored, without a seed; leave "
            "';seed=' out."
        )


def drawn_ranks(names: Sequence[str], *, seed: int = 0) -> np.ndarray:
    """Return each file's place in an order that its name, without folders, and a seed decide."""
    key = _SLICING_SEED + (str(seed).encode() if seed else b"")
    keys = [
        hashlib.blake2b(os.fsencode(os.path.basename(name)), key=key, digest_size=8)
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
            f"Cannot read the split {text!r}; write 'train', 'train[:80%]', 'train[100:200]' "
            "or, for another draw, 'train[:80%;seed=1]'."
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
    return Slice(name, start, stop, unit, is_whole=False, seed=_seed_of(match["seed"], text))


def _seed_of(text: str | None, whole: str) -> int:
    if text is None:
        return 0
    if len(text) > _MAX_SEED_DIGITS:
        raise ValueError(f"{whole!r}: a seed has at most {_MAX_SEED_DIGITS} digits.")
    return int(text)


def _to_position(bound: str, unit: str, lengths: tuple[int, ...]) -> int:
    total = sum(lengths)
    if unit == "shard":
        return sum(lengths[: int(bound)])
    position = round(float(bound) * total / 100) if unit == "%" else int(bound)
    if abs(position) > total:
        raise ValueError(f"The slice bound {bound}{unit} lies outside the {total:,} examples.")
    return position + total if position < 0 else position
