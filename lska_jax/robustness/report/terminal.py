"""The summary table as plain text: scores as rows, so that any number of models fits."""

import textwrap
from collections.abc import Sequence

from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report.grids import Footnotes, hole_lines
from lska_jax.robustness.report.names import Key, part_title, set_title
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

DATA_DIFFERS = "differs"
_GAP = "  "
_MIN_MODEL_WIDTH = 8


def terminal_table(summaries: Sequence[Summary], *, width: int = 100) -> str:
    """Return the summary of all models as plain text.

    Percentages have one decimal; behind each stands its 95 % interval. The column "data" says where
    the images of a row come from; where it differs between models, each number is marked.

    Args:
      summaries: one for each model.
      width: columns of text; models that do not fit beside each other come below.

    Raises:
      ValueError: as ``readings.check_summaries``.
    """
    check_summaries(summaries)
    keys = overview_keys(summaries)
    footnotes = Footnotes()
    labels = [row_label(key) for key in keys]
    readings = [[read(summary, key) for summary in summaries] for key in keys]
    data = [_data(row) for row in readings]
    cells = [
        [_cell(one, key, source == DATA_DIFFERS, footnotes) for one in row]
        for key, row, source in zip(keys, readings, data, strict=True)
    ]
    label_width = max([len("score"), *map(len, labels)])
    data_width = max([len("data"), *map(len, data)])
    left = label_width + data_width + 2 * len(_GAP)
    names = [printable(summary.model.name) for summary in summaries]
    widths = []
    for index, name in enumerate(names):
        needed = max([_MIN_MODEL_WIDTH, *(len(row[index]) for row in cells)])
        widths.append(max(needed, min(len(name), width - left)))
    lines: list[str] = []
    for block in _blocks(widths, width - left):
        head = [f"{'score':<{label_width}}", f"{'data':<{data_width}}"]
        head += [f"{_shorten(names[i], widths[i]):>{widths[i]}}" for i in block]
        lines += [_GAP.join(head).rstrip(), "-" * len(_GAP.join(head))]
        for label, source, row in zip(labels, data, cells, strict=True):
            words = [f"{label:<{label_width}}", f"{source:<{data_width}}"]
            lines.append(_GAP.join([*words, *(f"{row[i]:>{widths[i]}}" for i in block)]).rstrip())
        lines.append("")
    return "\n".join([*lines, *_notes(summaries, keys, readings, footnotes, width)]) + "\n"


def row_label(key: Key) -> str:
    """Return what stands before the numbers of a score: set, score, unit, better direction."""
    if not key.score:
        return set_title(key.set)
    facts = score_facts(key.score)
    part = part_title(key.part) if key.part else ""
    unit = "" if facts.is_percent else f"({facts.unit})"
    return " ".join(filter(None, (set_title(key.set), part, facts.label, unit, facts.arrow)))


def printable(text: str) -> str:
    """Return a text of others without line breaks and terminal control sequences."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _data(row: Sequence[Reading]) -> str:
    found = provenances(reading.stamped for reading in row)
    return DATA_DIFFERS if len(found) > 1 else "".join(found)


def _cell(reading: Reading, key: Key, is_marked: bool, footnotes: Footnotes) -> str:
    footnotes.add_word(reading.state)
    if reading.stamped is None:
        return WORDS[reading.state]
    marks = footnotes.note_marks(reading.stamped)
    if is_marked:
        marks = (PROVENANCE_LETTERS[reading.stamped.provenance], *marks)
    facts = score_facts(key.score)
    score = reading.stamped.score
    words = [print_value(score, facts), print_interval(score, facts) if reading.score else ""]
    return " ".join(filter(None, [*words, f"({','.join(marks)})" if marks else ""]))


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    blocks: list[list[int]] = []
    used = 0
    for index, width in enumerate(widths):
        if not blocks or used + len(_GAP) + width > room:
            blocks.append([])
            used = -len(_GAP)
        blocks[-1].append(index)
        used += len(_GAP) + width
    return blocks


def _shorten(name: str, width: int) -> str:
    if len(name) <= width:
        return name
    kept = width - 1
    return f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"


def _notes(
    summaries: Sequence[Summary],
    keys: Sequence[Key],
    readings: Sequence[Sequence[Reading]],
    footnotes: Footnotes,
    width: int,
) -> list[str]:
    lines = ["In %, with 95 % bootstrap intervals over images where they are known."]
    for name in provenances(one.stamped for row in readings for one in row):
        lines.append(f"{name} ({PROVENANCE_LETTERS[name]}): {PROVENANCE_WORDS[name]}.")
    if any(_data(row) == DATA_DIFFERS for row in readings):
        lines.append(
            f"{DATA_DIFFERS}: the models of this row were measured on different data; do not "
            "compare them."
        )
    for text in hole_lines(summaries, {key.set for key in keys}):
        footnotes.add(text)
    for mark, text in footnotes.lines():
        lines.append(f"({mark}) {text}" if mark else text)
    wrapped = []
    for line in lines:
        wrapped += textwrap.wrap(
            printable(line), width, subsequent_indent="    ", break_on_hyphens=False
        )
    return wrapped
