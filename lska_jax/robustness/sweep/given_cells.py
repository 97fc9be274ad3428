"""The cells of corrupted images that are given as files, of a model's own classes."""

import functools
from collections.abc import Callable, Sequence

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.catalogue import SETS
from lska_jax.robustness.sets.opening import CellData
from lska_jax.robustness.sets.own_corrupted import (
    OTHER_CORRUPTIONS,
    find_corruptions,
    open_corrupted,
)
from lska_jax.tasks.class_order import in_order


def find_given_cells(
    cells: Sequence[Cell], place: str, *, suite: str, class_names: tuple[str, ...]
) -> list[tuple[Cell, Callable[[], CellData]]]:
    """Return the cells that a place holds, of those that a suite asks for, and how each is opened.

    Corruptions that are none of the benchmark's come with the whole of it.

    Args:
      cells: of the suite.
      place: see ``sets.own_corrupted``.
      suite: as it was given, for the message.
      class_names: of the model, in label order.

    Raises:
      ValueError: there is nothing, or nothing that is asked for.
    """
    (image_set,) = [one for one in SETS.values() if one.can_be_generated]
    asked = {(cell.part, cell.severity) for cell in cells if cell.set == image_set.name}
    is_whole = len(asked) == len(image_set.parts) * len(image_set.severities)
    found = find_corruptions(place)
    own = image_set.own.name if image_set.own else image_set.name
    given = [
        Cell(own if part in image_set.parts else OTHER_CORRUPTIONS, part, severity)
        for part, severities in found.items()
        for severity in severities
        if (part, severity) in asked or (is_whole and part not in image_set.parts)
    ]
    if not given:
        raise ValueError(
            f"{place} holds none of the corruptions of --suite {suite}: it has "
            f"{', '.join(found)}. Give --suite {image_set.name}."
        )

    def read(cell: Cell) -> CellData:
        source = open_corrupted(place, cell.part, cell.severity, class_names=class_names)
        advice = "Give corrupted images of the model's classes."
        source = in_order(source, class_names, whose="the model", advice=advice)
        return CellData(source=source, provenance="own", origin=source.name, extra={})

    return [(cell, functools.partial(read, cell)) for cell in given]
