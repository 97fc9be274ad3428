"""Pictures of a set of corruptions: bars by corruption, and curves over severities."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from lska_jax.robustness.cells import Score, Summary
from lska_jax.robustness.report import drawing
from lska_jax.robustness.report.drawing import Picture, Style
from lska_jax.robustness.report.names import (
    Key,
    clean_set,
    grouped_parts,
    part_title,
    set_title,
    short_part_title,
)
from lska_jax.robustness.report.readings import all_keys, parts_of, read
from lska_jax.robustness.scores import score_facts

_SEVERITIES = (1, 2, 3, 4, 5)
_MAX_BARS_IN_A_ROW = 90
_BAR_SHARE = 0.84
_PANELS_IN_A_ROW = 5
_NOTHING = "×"
_LETTER_INCHES = 0.07


def bars(summaries: Sequence[Summary], set_name: str, score: str) -> Picture:
    """Draw a score of every corruption as grouped bars, one for each model.

    Args:
      summaries: of the models.
      set_name: a set with ``SET/SCORE/PART`` keys.
      score: "ce", or "error" where AlexNet's errors do not apply.
    """
    styles = drawing.styles([summary.model.name for summary in summaries])
    groups = grouped_parts(parts_of(summaries, set_name, score))
    rows = _rows_of_bars(groups, len(summaries))
    places = max(sum(len(parts) for _, parts in row) for row in rows)
    bars_in_a_row = max(_num_bars(row, len(summaries)) for row in rows)
    width = max(7.5, min(15.0, 1.0 + max(0.14 * bars_in_a_row, 0.62 * places)))
    figure, panels = drawing.new_figure(
        len(rows), 1, size=(width, 3.0 * len(rows) + 0.7), sharey=True
    )
    facts = score_facts(score)
    is_alexnet = score == "ce"
    missing = 0
    for panel, row in zip(panels, rows, strict=True):
        missing += _draw_bars(panel, summaries, styles, row, set_name, score)
        _name_places(panel, row, inches=(width - 1.0) / places)
        # As wide in all rows, so that bars are.
        panel.set_xlim(-0.6, places - 0.4)
        panel.set_ylabel(f"{facts.label} (%{' of AlexNet' if is_alexnet else ''}) {facts.arrow}")
        if is_alexnet:
            panel.axhline(100, color=drawing.GREY, linewidth=1, linestyle="--")
        drawing.tidy(panel, axis="y")
        _name_groups(panel, row)
    keys = [Key(set_name, score, part) for _, parts in groups for part in parts]
    labelled, sources = drawing.with_sources(styles, summaries, keys)
    handles, labels = _bar_legend(list(labelled.values()), is_alexnet=is_alexnet, missing=missing)
    drawing.legend_below(figure, handles, labels)
    label = facts.label[0].upper() + facts.label[1:]
    caption = f"{label} by corruption, with 95 % bootstrap intervals over images where known. "
    caption += "The dashed line is AlexNet. " if is_alexnet else ""
    caption += sources
    caption += _no_data_words(missing, "bars")
    return Picture(
        f"corruptions_{set_name}_{score}",
        f"{set_title(set_name)}: {facts.label} by corruption",
        caption.strip(),
        drawing.to_png(figure),
    )


def severity_curves(
    summaries: Sequence[Summary], set_name: str, score: str = "error"
) -> Picture | None:
    """Draw a score of every corruption against severity; None where no severity was kept.

    Severity 0 is the score on the set's clean images, where that is known.

    Args:
      summaries: of the models.
      set_name: a set with ``SET/SCORE/PART/SEVERITY`` keys.
      score: "error", or a metric of segmentors or detectors.
    """
    parts = [
        part
        for _, members in grouped_parts(parts_of(summaries, set_name, score, by_severity=True))
        for part in members
    ]
    keys = [Key(set_name, score, part, level) for part in parts for level in _SEVERITIES]
    if not any(read(summary, key).score for summary in summaries for key in keys):
        return None
    styles = drawing.styles([summary.model.name for summary in summaries])
    clean = _clean_key(set_name, score, all_keys(summaries))
    columns = min(_PANELS_IN_A_ROW, len(parts))
    rows = math.ceil(len(parts) / columns)
    figure, panels = drawing.new_figure(
        rows, columns, size=(2.3 * columns + 0.8, 2.0 * rows + 1.0), sharex=True, sharey=True
    )
    missing = 0
    for index, panel in enumerate(panels):
        if index >= len(parts):
            panel.set_visible(False)
            continue
        missing += _draw_curves(panel, summaries, styles, Key(set_name, score, parts[index]), clean)
        panel.set_title(part_title(parts[index]), fontsize=10)
        # The axes are shared: the lowest panel of a column shows the ticks.
        is_lowest = index + columns >= len(parts)
        panel.tick_params(labelbottom=is_lowest, labelsize=8.5)
        panel.set_xlabel("severity" if is_lowest else "", fontsize=9)
        drawing.tidy(panel)
    panels[0].set_ylim(0, 100)
    first = 0 if clean else 1
    panels[0].set_xlim(first - 0.3, 5.3)
    panels[0].set_xticks(range(first, 6), [*(["clean"] if clean else []), *"12345"])
    facts = score_facts(score)
    label = f"top-1 {facts.label}" if score == "error" else facts.label
    figure.supylabel(f"{label} (%) {facts.arrow}", fontsize=10)
    labelled, sources = drawing.with_sources(styles, summaries, keys)
    handles = [_line_handle(style) for style in styles.values()]
    drawing.legend_below(figure, handles, [style.label for style in labelled.values()])
    return Picture(
        f"severities_{set_name}" + (f"_{score}" if score != "error" else ""),
        f"{set_title(set_name)}: {facts.label} against severity",
        (
            f"{label[0].upper()}{label[1:]} against severity"
            + (", with 95 % bootstrap intervals over images. " if score == "error" else ". ")
            + sources
            + _no_data_words(missing, "points")
        ).strip(),
        drawing.to_png(figure),
    )


def _rows_of_bars(
    groups: Sequence[tuple[str, list[str]]], num_models: int
) -> list[list[tuple[str, list[str]]]]:
    """Deal groups out to as few rows as hold them, whole groups only."""
    for count in range(1, len(groups) + 1):
        deals = []
        for cuts in itertools.combinations(range(1, len(groups)), count - 1):
            edges = [0, *cuts, len(groups)]
            deals.append([list(groups[i:j]) for i, j in itertools.pairwise(edges)])
        # Rows of about the same length; of equals the deal whose last row is the shortest.
        best = min(
            reversed(deals), key=lambda rows: sum(_num_bars(row, num_models) ** 2 for row in rows)
        )
        if count == len(groups) or all(
            _num_bars(row, num_models) <= _MAX_BARS_IN_A_ROW for row in best
        ):
            return best
    return [list(groups)]


def _num_bars(row: Sequence[tuple[str, list[str]]], num_models: int) -> int:
    return sum(len(parts) for _, parts in row) * (num_models + 1)


def _draw_bars(
    panel: Any,
    summaries: Sequence[Summary],
    styles: Any,
    row: Sequence[tuple[str, list[str]]],
    set_name: str,
    score_name: str,
) -> int:
    """Draw one row of bars and return how many are missing."""
    parts = [part for _, members in row for part in members]
    width = _BAR_SHARE / len(summaries)
    missing = 0
    for number, summary in enumerate(summaries):
        style = styles[summary.model.name]
        offset = (number - (len(summaries) - 1) / 2) * width
        places, scores = [], []
        for place, part in enumerate(parts):
            score = read(summary, Key(set_name, score_name, part)).score
            if score is None or score.value is None:
                panel.text(
                    place + offset, 0, _NOTHING, color=style.colour, ha="center", va="bottom"
                )
                missing += 1
            else:
                places.append(place + offset)
                scores.append(score)
        panel.bar(
            places,
            [100 * (score.value or 0.0) for score in scores],
            width,
            color=style.colour,
            hatch=style.hatch,
            edgecolor="white",
            linewidth=0.4,
            yerr=drawing.interval_lengths(scores),
            error_kw={"elinewidth": 0.9, "ecolor": "#333333"},
        )
    return missing


def _name_places(panel: Any, row: Sequence[tuple[str, list[str]]], *, inches: float) -> None:
    """Name the corruptions below their bars, slanted where a name is longer than its place."""
    names = [short_part_title(part) for _, parts in row for part in parts]
    panel.set_xticks(range(len(names)), names)
    panel.tick_params(axis="x", length=0, labelsize=9)
    if max(map(len, names)) * _LETTER_INCHES > inches:
        for label in panel.get_xticklabels():
            label.set(rotation=25, ha="right", rotation_mode="anchor")


def _name_groups(panel: Any, row: Sequence[tuple[str, list[str]]]) -> None:
    first = 0
    for title, parts in row:
        if first:
            panel.axvline(first - 0.5, color=drawing.LIGHT_GREY, linewidth=0.8)
        panel.text(
            first + (len(parts) - 1) / 2,
            1.02,
            title,
            transform=panel.get_xaxis_transform(),
            ha="center",
            fontsize=10,
            color=drawing.GREY,
        )
        first += len(parts)


def _bar_legend(
    styles: Sequence[Style], *, is_alexnet: bool, missing: int
) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(facecolor=style.colour, hatch=style.hatch, edgecolor="white") for style in styles
    ]
    labels = [style.label for style in styles]
    if is_alexnet:
        handles.append(Line2D([], [], color=drawing.GREY, linewidth=1, linestyle="--"))
        labels.append("AlexNet")
    if missing:
        handles.append(
            Line2D([], [], color=drawing.GREY, marker="x", linestyle="none", markersize=5)
        )
        labels.append("no data")
    return handles, labels


def _draw_curves(
    panel: Any,
    summaries: Sequence[Summary],
    styles: Any,
    key: Key,
    clean: Key | None,
) -> int:
    missing = 0
    without = []
    for summary in summaries:
        style = styles[summary.model.name]
        places, scores = [], []
        if clean and (on_clean := read(summary, clean).score):
            places.append(0)
            scores.append(_complement(on_clean) if clean.score == "top1" else on_clean)
        count = 0
        for level in _SEVERITIES:
            score = read(summary, key._replace(severity=level)).score
            if score is None:
                # A gap in the line, not a line across the gap.
                places.append(level)
                scores.append(Score(math.nan))
            else:
                count += 1
                places.append(level)
                scores.append(score)
        missing += len(_SEVERITIES) - count
        if not count:
            without.append(style.label)
        panel.errorbar(
            places,
            [100 * (score.value if score.value is not None else math.nan) for score in scores],
            yerr=drawing.interval_lengths(scores),
            color=style.colour,
            marker=style.marker,
            markersize=4,
            linewidth=1.3,
            elinewidth=0.8,
        )
    if without:
        who = "" if len(without) == len(summaries) else ":\n" + "\n".join(without[:3])
        more = f"\nand {len(without) - 3} more" if who and len(without) > 3 else ""
        panel.text(
            0.97,
            0.06,
            f"no data{who}{more}",
            transform=panel.transAxes,
            ha="right",
            va="bottom",
            fontsize=7,
            color=drawing.GREY,
        )
    return missing


def _clean_key(set_name: str, score: str, keys: Sequence[Key]) -> Key | None:
    """Return the score of the clean images that a set goes back to, or None."""
    if score == "error":
        clean = clean_set(set_name, keys)
        return Key(clean, "top1") if clean else None
    clean_key = Key(set_name.removesuffix("_c"), score)
    return clean_key if clean_key in keys else None


def _complement(score: Score) -> Score:
    """Return the error of an accuracy."""
    low, high = score.low, score.high
    return Score(
        None if score.value is None else 1 - score.value,
        None if high is None else 1 - high,
        None if low is None else 1 - low,
    )


def _line_handle(style: Style) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.colour, marker=style.marker, markersize=5, linewidth=1.3)


def _no_data_words(count: int, what: str) -> str:
    if not count:
        return ""
    return f"There is no data for {count} of the {what}; the page says what is missing."
