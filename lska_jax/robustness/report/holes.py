"""What is missing, put in few words."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lska_jax.robustness.cells import Cell, Summary
from lska_jax.robustness.report.names import set_title

# What is missing of more parts of a set is counted where there is little room.
_MAX_PARTS = 4


class HoleGroup(NamedTuple):
    """Missing cells with one reason.

    Attributes:
      cells: in words, e.g. "ImageNet-C: frost (1-5), snow (3)".
      brief: the same, only counted where they are many.
      reason: what is missing and where to get it.
      models: names of the models that miss them.
    """

    cells: str
    brief: str
    reason: str
    models: tuple[str, ...]


def group_holes(summaries: Sequence[Summary]) -> list[HoleGroup]:
    """Return what is missing, one entry for each reason and the models that it holds for."""
    found: dict[tuple[str, str], dict[Cell, dict[str, None]]] = {}
    for summary in summaries:
        for hole in summary.holes:
            cells = found.setdefault((hole.cell.set, hole.reason), {})
            cells.setdefault(hole.cell, {})[summary.model.name] = None
    groups = []
    for (set_name, reason), cells in found.items():
        by_models: dict[tuple[str, ...], list[Cell]] = {}
        for cell, models in cells.items():
            by_models.setdefault(tuple(models), []).append(cell)
        groups += [
            HoleGroup(_in_words(set_name, members), _in_brief(set_name, members), reason, models)
            for models, members in by_models.items()
        ]
    return groups


def hole_lines(
    summaries: Sequence[Summary], *, sets: Iterable[str] | None = None, limit: int = 12
) -> list[str]:
    """Return one line for each reason why images are missing.

    Args:
      summaries: of the models.
      sets: only of these; None is all of them.
      limit: reasons to list; how many more there are stands in the last line.
    """
    names = None if sets is None else set(sets)
    concerned = [
        dataclasses.replace(
            one, holes=tuple(h for h in one.holes if names is None or h.cell.set in names)
        )
        for one in summaries
    ]
    lines = []
    for group in group_holes(concerned):
        of_all = len(group.models) == len(summaries)
        models = "" if of_all else f" (for {', '.join(group.models)})"
        lines.append(f"missing {group.brief}{models}: {group.reason}")
    if len(lines) > limit:
        lines[limit:] = [f"and {len(lines) - limit} more reasons, all of them in results.json"]
    return lines


def _in_brief(set_name: str, cells: Sequence[Cell]) -> str:
    parts = {cell.part for cell in cells}
    if len(parts) <= _MAX_PARTS:
        return _in_words(set_name, cells)
    return f"{set_title(set_name)}: {len(cells)} cells of {len(parts)} parts"


def _in_words(set_name: str, cells: Sequence[Cell]) -> str:
    severities: dict[str, list[int]] = {}
    for cell in cells:
        severities.setdefault(cell.part, []).append(cell.severity)
    parts = []
    for part, present in severities.items():
        numbers = ", ".join(map(str, sorted(set(present) - {0})))
        numbers = "1-5" if numbers == "1, 2, 3, 4, 5" else numbers
        parts.append(part + (f" ({numbers})" if numbers else ""))
    return ": ".join(text for text in (set_title(set_name), ", ".join(filter(None, parts))) if text)
