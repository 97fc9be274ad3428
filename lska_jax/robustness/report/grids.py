"""Tables with models as rows, before anybody decides how they are written.

A grid knows for each number where its images come from. Numbers of one column that come from
different data are marked, and none of them is called the best.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report.footnotes import Footnotes
from lska_jax.robustness.report.holes import hole_lines
from lska_jax.robustness.report.names import (
    Key,
    grouped_parts,
    in_set_order,
    part_title,
    set_title,
    short_part_title,
)
from lska_jax.robustness.report.readings import (
    WORDS,
    Reading,
    all_sets,
    best_of,
    overview_keys,
    parts_of,
    print_interval,
    print_value,
    provenances,
    read,
)
from lska_jax.robustness.scores import score_facts
from lska_jax.robustness.scores.dense_scorer import DENSE_METRICS

# The columns of the paper's table of robustness. Its code takes mCE over 19 corruptions, the
# benchmark defines it over 15: both, labelled.
_PAPER_COLUMNS = (
    Key("imagenet", "top1"),
    Key("imagenet_c", "mce_15"),
    Key("imagenet_c", "mce_19"),
    Key("imagenet_c_bar", "mean_error"),
    Key("imagenet_a", "top1_200"),
    Key("imagenet_r", "top1_200"),
    Key("imagenet_sketch", "top1"),
)
# The same for sets that the paper does not have.
_OTHER_COLUMNS = (
    *("top1", "mean_error", "shape_bias"),
    *("miou", "mean_miou_15", "box_ap", "mean_box_ap_15", "mask_ap", "mean_mask_ap_15"),
    *("map", "mean_map_15"),
)
_MEANS_OF = {
    "ce": ("mce_15", "mce_19"),
    "error": ("mean_error", "mean_error_19"),
    **{score: (f"mean_{score}_15", f"mean_{score}_19") for score in DENSE_METRICS},
}


class Column(NamedTuple):
    """Head of a column.

    Attributes:
      key: what it shows.
      label: where the column stands below the title of its group.
      arrow: which direction is better.
      full_label: where it stands alone.
    """

    key: Key
    label: str
    arrow: str
    full_label: str


class Entry(NamedTuple):
    """One number of a table, or the word in its place.

    Attributes:
      text: the number without interval, or the word.
      interval: "[low, high]" or "".
      is_best: of its column.
      marks: of footnotes.
    """

    text: str
    interval: str
    is_best: bool
    marks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table with models as rows.

    Attributes:
      name: for file names and references, e.g. "paper".
      title: one line.
      groups: (title, number of columns) over the columns, or () where there are none.
      columns: their heads.
      rows: (name of the model, one entry for each column).
      footnotes: (mark or "", text).
    """

    name: str
    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
    footnotes: tuple[tuple[str, str], ...]


def paper_grid(summaries: Sequence[Summary]) -> Grid:
    """Return the paper's table of robustness: clean top-1, mCE and the shifted sets.

    A column stands where any model was measured or misses images.
    """
    keys = [key for key in _PAPER_COLUMNS if _is_known(summaries, key)]
    named = {key.set for key in _PAPER_COLUMNS}
    available = overview_keys(summaries)
    for name in all_sets(summaries):
        scores = [key.score for key in available if key.set == name and not key.part]
        chosen = [score for score in _OTHER_COLUMNS if score in scores]
        if name not in named:
            keys += [Key(name, score) for score in chosen]
    ordered = in_set_order(key.set for key in keys)
    keys.sort(key=lambda key: ordered.index(key.set))
    columns = []
    for key in keys:
        facts = score_facts(key.score)
        title = f"{set_title(key.set)} {facts.label}"
        columns.append(Column(key, facts.label, facts.arrow, title))
    groups = [(set_title(name), sum(key.set == name for key in keys)) for name in ordered]
    title = "Robustness in the paper's form, in %"
    return _grid(summaries, columns, name="paper", title=title, groups=groups)


def corruption_grid(summaries: Sequence[Summary], set_name: str, score: str) -> Grid:
    """Return the table of one set with a column for each corruption.

    Args:
      summaries: of the models.
      set_name: e.g. "imagenet_c".
      score: "ce" or "error".

    Raises:
      ValueError: no model has the score on a part of the set.
    """
    groups = grouped_parts(parts_of(summaries, set_name, score))
    if not groups:
        raise ValueError(
            f"No model has {score!r} for the parts of {set_name!r}: a table by corruption needs "
            f"keys like {set_name}/{score}/gaussian_noise."
        )
    means = [Key(set_name, mean) for mean in _MEANS_OF.get(score, ())]
    means = [key for key in means if _is_known(summaries, key)]
    columns = []
    for key in means:
        label = score_facts(key.score).label
        columns.append(Column(key, label, "", label))
    for _, parts in groups:
        for part in parts:
            label = short_part_title(part)
            columns.append(Column(Key(set_name, score, part), label, "", label))
    facts = score_facts(score)
    better = {True: ", higher is better", False: ", lower is better", None: ""}
    of_alexnet = " of AlexNet's error" if score == "ce" else ""
    return _grid(
        summaries,
        columns,
        name=f"{set_name}_{score}",
        title=f"{set_title(set_name)}: {facts.label} by corruption, in %{of_alexnet}"
        f"{better[facts.is_higher_better]}",
        groups=_titled(means, groups),
    )


def set_grid(summaries: Sequence[Summary], set_name: str) -> Grid:
    """Return the table of one set: every score of the whole set as a column."""
    columns = []
    for key in overview_keys(summaries):
        if key.set == set_name and key.score:
            facts = score_facts(key.score)
            unit = "" if facts.is_percent else f" ({facts.unit})"
            part = f" {part_title(key.part)}" if key.part else ""
            part = f"{part} {key.severity}" if key.severity else part
            label = f"{facts.label}{part}{unit}"
            columns.append(Column(key, label, facts.arrow, label))
    return _grid(summaries, columns, name=set_name, title=set_title(set_name))


def corruption_scores(summaries: Sequence[Summary], set_name: str) -> list[str]:
    """Return which scores a set has for single corruptions: "ce", "error"."""
    return [score for score in _MEANS_OF if parts_of(summaries, set_name, score)]


def _grid(
    summaries: Sequence[Summary],
    columns: Sequence[Column],
    *,
    name: str,
    title: str,
    groups: Iterable[tuple[str, int]] = (),
) -> Grid:
    footnotes = Footnotes()
    readings = [[read(summary, column.key) for column in columns] for summary in summaries]
    best = [
        best_of([row[index] for row in readings], score_facts(column.key.score))
        for index, column in enumerate(columns)
    ]
    rows = tuple(
        (
            summary.model.name,
            tuple(
                _entry(reading, column, number in best[index], footnotes)
                for index, (reading, column) in enumerate(zip(row, columns, strict=True))
            ),
        )
        for number, (summary, row) in enumerate(zip(summaries, readings, strict=True))
    )
    if any(
        len(provenances(row[index].stamped for row in readings)) > 1
        for index in range(len(columns))
    ):
        footnotes.add(
            "numbers of one column that are marked differently rest on different data: they cannot "
            "be compared, and none of them is called the best"
        )
    sets = {column.key.set for column in columns}
    for text in hole_lines(summaries, sets=sets):
        footnotes.add(text)
    return Grid(
        name=name,
        title=title,
        groups=tuple(groups),
        columns=tuple(columns),
        rows=rows,
        footnotes=footnotes.lines(),
    )


def _titled(
    means: Sequence[Key], groups: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[str, int]]:
    """Return titles above the columns, none where the corruptions belong to no groups."""
    if not any(title for title, _ in groups):
        return []
    titled = [(title, len(parts)) for title, parts in groups]
    return [("Mean", len(means)), *titled] if means else titled


def _entry(reading: Reading, column: Column, is_best: bool, footnotes: Footnotes) -> Entry:
    marks = footnotes.marks_of(reading)
    if reading.score is None:
        return Entry(WORDS[reading.state], "", False, marks)
    facts = score_facts(column.key.score)
    return Entry(
        print_value(reading.score, facts), print_interval(reading.score, facts), is_best, marks
    )


def _is_known(summaries: Sequence[Summary], key: Key) -> bool:
    return any(read(summary, key).state != "not measured" for summary in summaries)
