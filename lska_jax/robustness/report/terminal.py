"""The summary table as plain text: scores as rows, so that any number of models fits."""

import textwrap
from collections.abc import Sequence
from itertools import groupby

from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report.footnotes import Footnotes
from lska_jax.robustness.report.holes import hole_lines
from lska_jax.robustness.report.names import Key, part_title, printable, set_title
from lska_jax.robustness.report.readings import (
    PROVENANCE_LETTERS,
    PROVENANCE_WORDS,
    WORDS,
    Reading,
    check_summaries,
    overview_keys,
    print_interval,
    print_value,
    provenances,
    read,
)
from lska_jax.robustness.scores import score_facts

_GAP = "  "
_INDENT = " "
# A longer name of a model is shortened, unless its numbers are as wide.
_NAME_WIDTH = 20


def terminal_table(summaries: Sequence[Summary], *, width: int = 100) -> str:
    """Return the summary of all models as plain text.

    Percentages have one decimal; behind each stands its 95 % interval. Behind the name of a set
    stands where its images come from; where that differs within the set, each number is marked.

    Args:
      summaries: one for each model.
      width: columns of text; models that do not fit beside each other come below.

    Raises:
      ValueError: as ``readings.check_summaries``.
    """
    check_summaries(summaries)
    footnotes = Footnotes()
    keys = overview_keys(summaries)
    sets = [(name, list(members)) for name, members in groupby(keys, key=lambda key: key.set)]
    # One line for each score: what stands before the numbers, and one cell for each model.
    lines: list[tuple[str, list[str]]] = []
    for name, members in sets:
        readings = [[read(summary, key) for summary in summaries] for key in members]
        found = provenances(one.stamped for row in readings for one in row)
        source = f" ({found[0]})" if len(found) == 1 else ""
        lines.append((f"{set_title(name)}{source}", []))
        for key, row in zip(members, readings, strict=True):
            cells = [_cell(one, key, len(found) > 1, footnotes) for one in row]
            lines.append((_INDENT + score_label(key), cells))
    blocks = _blocks(lines, [printable(one.model.name) for one in summaries], width)
    return "\n".join([*blocks, *_notes(summaries, keys, footnotes, width)]) + "\n"


def score_label(key: Key) -> str:
    """Return what stands before the numbers of a score: part, score, unit, better direction."""
    if not key.score:
        return "all scores"
    facts = score_facts(key.score)
    part = part_title(key.part) if key.part else ""
    part = f"{part} {key.severity}" if key.severity else part
    unit = "" if facts.is_percent else f"({facts.unit})"
    return " ".join(filter(None, (part, facts.label, unit, facts.arrow)))


def _cell(reading: Reading, key: Key, is_marked: bool, footnotes: Footnotes) -> str:
    footnotes.add_word(reading.state)
    if reading.stamped is None:
        return WORDS[reading.state]
    marks = footnotes.note_marks(reading.stamped)
    if is_marked:
        marks = (PROVENANCE_LETTERS[reading.stamped.provenance], *marks)
    score = reading.stamped.score
    facts = score_facts(key.score)
    words = [print_value(score, facts), print_interval(score, facts) if reading.score else ""]
    return " ".join(filter(None, [*words, f"({','.join(marks)})" if marks else ""]))


def _blocks(lines: Sequence[tuple[str, list[str]]], names: Sequence[str], width: int) -> list[str]:
    """Return the table in as many blocks, one below the other, as the width needs."""
    left = max([len("score"), *(len(label) for label, _ in lines)])
    widths = []
    for index, name in enumerate(names):
        needed = max([len(cells[index]) for _, cells in lines if cells], default=0)
        widths.append(max(needed, min(len(name), _NAME_WIDTH)))
    blocks = []
    for members in _dealt(widths, width - left):
        head = [_GAP + f"{_shortened(names[i], widths[i]):>{widths[i]}}" for i in members]
        text = [f"{'score':<{left}}" + "".join(head)]
        text.append("-" * len(text[0]))
        for label, cells in lines:
            columns = [_GAP + f"{cells[i]:>{widths[i]}}" for i in members if cells]
            text.append((f"{label:<{left}}" + "".join(columns)).rstrip())
        blocks.append("\n".join(text) + "\n")
    return blocks


def _dealt(widths: Sequence[int], room: int) -> list[list[int]]:
    """Deal columns out to blocks; a block has one at least, even where it is too wide."""
    blocks: list[list[int]] = []
    used = 0
    for index, width in enumerate(widths):
        if not blocks or used + len(_GAP) + width > room:
            blocks.append([])
            used = 0
        blocks[-1].append(index)
        used += len(_GAP) + width
    return blocks


def _shortened(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    kept = width - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


def _notes(
    summaries: Sequence[Summary], keys: Sequence[Key], footnotes: Footnotes, width: int
) -> list[str]:
    lines = ["In % unless a unit is named, with 95 % bootstrap intervals over images where known."]
    stamped = [read(summary, key).stamped for summary in summaries for key in keys]
    for name in provenances(stamped):
        lines.append(f"{name} ({PROVENANCE_LETTERS[name]}): {PROVENANCE_WORDS[name]}.")
    mixed = [
        key for key in keys if len(provenances(read(one, key).stamped for one in summaries)) > 1
    ]
    if mixed:
        lines.append(
            "Numbers of one line that are marked differently rest on different data: do not "
            "compare them."
        )
    for text in hole_lines(summaries):
        footnotes.add(text)
    for mark, text in footnotes.lines():
        lines.append(f"({mark}) {text}" if mark else text)
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            printable(line), width, subsequent_indent="    ", break_on_hyphens=False
        )
    ]
