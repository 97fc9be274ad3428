"""The image sets of the benchmark by name, and suites of them.

Each set is one record, see ``record.ImageSet``. A set is added as one more entry of ``SETS``.

Every fact of a record has its source beside it. Sizes in bytes are those that TFDS 4.9.10 registers
with the checksum of the download (``datasets/*/checksums.tsv``, ``url_checksums/*.txt``); what
could not be established is None.
"""

import difflib
from collections.abc import Sequence

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.scores.dense_scorer import dense_scorer
from lska_jax.robustness.scores.scorer import ClassSubset, Scorer
from lska_jax.robustness.sets.cue_conflict import CUE_CONFLICT
from lska_jax.robustness.sets.imagenet import IMAGENET
from lska_jax.robustness.sets.imagenet_c import IMAGENET_C, IMAGENET_C_BAR
from lska_jax.robustness.sets.imagenet_o import IMAGENET_O
from lska_jax.robustness.sets.imagenet_p import IMAGENET_P
from lska_jax.robustness.sets.imagenet_real import IMAGENET_REAL
from lska_jax.robustness.sets.made_conflict import MADE_CONFLICT
from lska_jax.robustness.sets.own_corrupted import OTHER_CORRUPTIONS, OTHER_SCORER
from lska_jax.robustness.sets.record import ImageSet
from lska_jax.robustness.sets.shifted_photos import (
    IMAGENET_A,
    IMAGENET_R,
    IMAGENET_SKETCH,
    IMAGENET_V2,
)

_RECORDS = (
    *(IMAGENET, IMAGENET_REAL, IMAGENET_C, IMAGENET_C_BAR, IMAGENET_A, IMAGENET_R),
    *(IMAGENET_SKETCH, IMAGENET_V2, IMAGENET_O, IMAGENET_P, CUE_CONFLICT),
    MADE_CONFLICT,
)
# In the order of the report and of the suite "full".
SETS: dict[str, ImageSet] = {record.name: record for record in _RECORDS}

_PAPER = (
    *("imagenet", "imagenet_c", "imagenet_c_bar"),
    *("imagenet_a", "imagenet_r", "imagenet_sketch"),
)
# Needs the clean images alone if the corruption is generated; contrast draws nothing at random, so
# two tries give one number. For CIFAR-10's classes the clean images may be drawn (``stand_ins``).
_SMOKE = ("imagenet", *(f"imagenet_c/contrast/{severity}" for severity in (1, 3, 5)))


def suites() -> dict[str, tuple[str, ...]]:
    """Return what each suite consists of: sets, "SET/PART" or "SET/PART/SEVERITY"."""
    return {"paper": _PAPER, "full": tuple(SETS), "smoke": _SMOKE}


def find_set(name: str) -> ImageSet:
    """Return the record of a set.

    Raises:
      ValueError: there is no set of that name; the closest ones are named.
    """
    if name not in SETS:
        raise ValueError(_unknown("image set", name, tuple(SETS)))
    return SETS[name]


def find_scorer(name: str) -> Scorer:
    """Return what the results of a set are scored by, also under its name for other classes.

    Results of a set that the catalogue does not have are reported cell by cell.
    """
    if name in SETS:
        return SETS[name].scorer
    if name == OTHER_CORRUPTIONS:
        return OTHER_SCORER
    if scorer := dense_scorer(name):
        return scorer
    owned = (record.own for record in SETS.values() if record.own and record.own.name == name)
    own = next(owned, None)
    return own.scorer if own else Scorer(headlines=())


def class_subsets() -> tuple[ClassSubset, ...]:
    """Return the classes of every set that has some of the 1000, in the order of the catalogue."""
    return tuple(record.subset() for record in SETS.values() if record.subset)


def clean_cell() -> Cell:
    """Return the cell of the clean images."""
    return Cell(next(name for name, record in SETS.items() if record.is_clean))


def set_cells(
    name: str,
    *,
    parts: Sequence[str] | None = None,
    severities: Sequence[int] | None = None,
) -> tuple[Cell, ...]:
    """Return the cells of a set, parts in official order and severities ascending within.

    Args:
      name: of the set.
      parts: only these; None is all of them.
      severities: only these; None is all of them.

    Raises:
      ValueError: the set, a part or a severity is unknown.
    """
    facts = find_set(name)
    for part in parts or ():
        if part not in facts.parts:
            raise ValueError(_unknown(f"part of {name}", part, facts.parts))
    for level in severities or ():
        if level not in facts.severities:
            raise ValueError(_unknown(f"severity of {name}", str(level), facts.severities))
    return tuple(
        Cell(name, part, level)
        for part in (facts.parts if parts is None else parts)
        for level in (facts.severities if severities is None else severities)
    )


def parse_suite(text: str) -> tuple[Cell, ...]:
    """Return the cells that a suite names, each once, in the order given.

    Args:
      text: comma-separated suites ("paper", "full", "smoke"), sets ("imagenet_a"), parts
        ("imagenet_c/fog") and cells ("imagenet_c/fog/3").

    Raises:
      ValueError: a name is unknown, or there is none.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise ValueError(
            f"The suite {text!r} names nothing; give {', '.join(suites())}, or names of sets "
            f"separated by commas: {', '.join(SETS)}."
        )
    cells: dict[Cell, None] = {}
    for item in items:
        for name in suites().get(item, (item,)):
            cells |= dict.fromkeys(_item_cells(name))
    return tuple(cells)


def _item_cells(item: str) -> tuple[Cell, ...]:
    name, *rest = item.split("/")
    if name not in SETS:
        known = (*suites(), *SETS)
        raise ValueError(_unknown("suite or image set", name, known))
    if len(rest) > 2 or (len(rest) == 2 and not rest[1].isdecimal()):
        raise ValueError(f"Cannot read {item!r}; write SET, SET/PART or SET/PART/SEVERITY.")
    return set_cells(
        name,
        parts=rest[:1] or None,
        severities=[int(level) for level in rest[1:]] or None,
    )


def _unknown(kind: str, name: str, known: Sequence[object]) -> str:
    names = [str(one) for one in known if one]
    if not names:
        return f"There is no {kind} {name!r}: it has none."
    close = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"There is no {kind} {name!r}.{hint} Known: {', '.join(names)}."
