"""Accuracy under shift against clean accuracy, and how much of it clean accuracy explains.

Robustness that is more than clean accuracy is *effective robustness*: the accuracy under shift
beyond what the trend over models predicts from the clean accuracy. The trend is a straight line
between the logits log(a / (1 - a)) of both accuracies, fitted by least squares: Taori et al.,
"Measuring Robustness to Natural Distribution Shifts in Image Classification", arXiv 2007.00644,
section 2. They fit it to a test bed of models without robustness interventions; here it is fitted
to the models of the report, from three on, and so says only who of them is above the rest. For one
or two models there is only y = x, the accuracy that a shift without effect would leave.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lska_jax.robustness.cells import Score, StampedScore, Summary
from lska_jax.robustness.report import drawing
from lska_jax.robustness.report.drawing import Picture
from lska_jax.robustness.report.names import Key, clean_set, part_title, set_title
from lska_jax.robustness.report.readings import all_keys, all_sets, read

MIN_MODELS_FOR_TREND = 3
# The accuracy under shift of a set, in this order of preference; errors are turned round.
_ACCURACIES = ("top1_200", "top1", "mean_error")
_ERRORS = ("mean_error",)
_PANELS_IN_A_ROW = 4


class Trend(NamedTuple):
    """A straight line between logits: logit(shifted) = slope * logit(clean) + intercept."""

    slope: float
    intercept: float

    def predict(self, clean: float) -> float:
        """Return the accuracy under shift that the trend gives for a clean accuracy in (0, 1)."""
        return 1 / (1 + math.exp(-(self.slope * _logit(clean) + self.intercept)))


class Point(NamedTuple):
    """One model in one panel: accuracies with intervals."""

    model: str
    clean: Score
    shifted: Score


def fit_trend(points: Sequence[tuple[float, float]]) -> Trend | None:
    """Return the line through (clean, shifted) accuracies, or None where there can be none.

    That is where fewer than three models are left, or all have the same clean accuracy. Accuracies
    of 0 and 1 have no logit and are left out.
    """
    inside = [(x, y) for x, y in points if 0 < x < 1 and 0 < y < 1]
    if len(inside) < MIN_MODELS_FOR_TREND or len({x for x, _ in inside}) < 2:
        return None
    x = np.asarray([_logit(a) for a, _ in inside])
    y = np.asarray([_logit(b) for _, b in inside])
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred**2).sum())
    return Trend(slope, float(y.mean() - slope * x.mean()))


def shift_scatter(summaries: Sequence[Summary]) -> Picture | None:
    """Draw accuracy under shift against clean accuracy, one panel for each shifted set.

    None where no model has both. A panel holds numbers of one provenance only; where models were
    measured on different data, only those with the most common one are drawn, and it says so.
    """
    panels_of = [(key, _points(summaries, key)) for key in _shifted_keys(summaries)]
    panels_of = [(key, points) for key, points in panels_of if points[0]]
    if not panels_of:
        return None
    styles = drawing.styles([summary.model.name for summary in summaries])
    columns = min(_PANELS_IN_A_ROW, len(panels_of))
    rows = math.ceil(len(panels_of) / columns)
    figure, panels = drawing.new_figure(
        rows, columns, size=(max(6.5, 3.1 * columns + 0.4), 3.3 * rows + 1.3)
    )
    has_trend = False
    left_out = False
    for index, panel in enumerate(panels):
        if index >= len(panels_of):
            panel.set_visible(False)
            continue
        key, (points, others) = panels_of[index]
        has_trend |= _draw(panel, key, points, styles)
        left_out |= bool(others)
        _say_who_is_absent(panel, len(summaries) - len(points), len(others))
        if index + columns >= len(panels_of):
            panel.set_xlabel("clean top-1 accuracy (%)", fontsize=9)
    figure.supylabel("accuracy under shift (%)", fontsize=10)
    handles, labels = _legend(styles, has_trend=has_trend)
    drawing.legend_below(figure, handles, labels)
    caption = "Accuracy under shift against clean accuracy, with 95 % bootstrap intervals. "
    caption += (
        "The solid line is the trend over the models shown, fitted between logits; what lies above "
        "it has effective robustness relative to these models. "
        if has_trend
        else f"No trend is drawn: it needs at least {MIN_MODELS_FOR_TREND} models of different "
        "clean accuracy. "
    )
    caption += "On the dashed line y = x a shift has no effect. "
    caption += "Models measured on other data than the rest are left out. " if left_out else ""
    return Picture(
        "shift",
        "Accuracy under shift against clean accuracy",
        caption.strip(),
        drawing.to_png(figure),
    )


def _logit(accuracy: float) -> float:
    return math.log(accuracy / (1 - accuracy))


def _shifted_keys(summaries: Sequence[Summary]) -> list[Key]:
    keys = [key for key in all_keys(summaries) if not key.severity]
    chosen = []
    for name in all_sets(summaries):
        clean = clean_set(name, keys)
        for score in _ACCURACIES if clean else ():
            found = [key for key in keys if (key.set, key.score) == (name, score)]
            if found and not (score == "top1" and clean == name):
                chosen += [key for key in found if not key.part] or found
                break
    return chosen


def _points(summaries: Sequence[Summary], key: Key) -> tuple[list[Point], list[str]]:
    """Return the points of one provenance, and the models that were measured on other data."""
    clean = clean_set(key.set, all_keys(summaries))
    found: list[tuple[Point, StampedScore]] = []
    for summary in summaries:
        shifted = read(summary, key)
        control = _clean_reading(summary, key, clean)
        if shifted.score and shifted.stamped and control:
            score = _turned(shifted.score) if key.score in _ERRORS else shifted.score
            found.append((Point(summary.model.name, control, score), shifted.stamped))
    kinds = [stamped.provenance for _, stamped in found]
    common = max(kinds, key=kinds.count, default="")
    points = [point for point, stamped in found if stamped.provenance == common]
    return points, [point.model for point, stamped in found if stamped.provenance != common]


def _clean_reading(summary: Summary, key: Key, clean: str | None) -> Score | None:
    """Return the clean accuracy with as many logits as the other has."""
    if key.score == "top1_200":
        return read(summary, Key(key.set, "clean_top1_200")).score
    return read(summary, Key(clean, "top1")).score if clean else None


def _turned(score: Score) -> Score:
    def turn(value: float | None) -> float | None:
        return None if value is None else 1 - value

    return Score(turn(score.value), turn(score.high), turn(score.low))


def _draw(panel: Any, key: Key, points: Sequence[Point], styles: Any) -> bool:
    """Draw one panel and tell whether it got a trend."""
    for point in points:
        style = styles[point.model]
        panel.errorbar(
            [100 * (point.clean.value or 0.0)],
            [100 * (point.shifted.value or 0.0)],
            xerr=drawing.interval_lengths([point.clean]),
            yerr=drawing.interval_lengths([point.shifted]),
            color=style.colour,
            marker=style.marker,
            markersize=6,
            elinewidth=0.9,
            linestyle="none",
            zorder=3,
        )
    pairs = [(point.clean.value or 0.0, point.shifted.value or 0.0) for point in points]
    trend = fit_trend(pairs)
    # Without a trend y = x is what there is to see, so it has to be in view.
    left, right = _span([point.clean for point in points]) if trend else (0.0, 1.0)
    bottom, top = _span([point.shifted for point in points]) if trend else (0.0, 1.0)
    xs = np.linspace(left, right, 50)
    panel.plot(100 * xs, 100 * xs, color=drawing.GREY, linewidth=1, linestyle="--", zorder=1)
    if trend:
        inside = xs[(xs > 0) & (xs < 1)]
        fitted = [100 * trend.predict(float(x)) for x in inside]
        panel.plot(100 * inside, fitted, color="black", linewidth=1.2, zorder=2)
    panel.set_xlim(100 * left, 100 * right)
    panel.set_ylim(100 * bottom, 100 * top)
    part = f" {part_title(key.part)}" if key.part else ""
    logits = " (200 logits)" if key.score == "top1_200" else ""
    panel.set_title(f"{set_title(key.set)}{part}{logits}", fontsize=10)
    drawing.tidy(panel)
    return trend is not None


def _span(scores: Sequence[Score]) -> tuple[float, float]:
    """Return limits of an axis that hold values and intervals with room around them."""
    ends = [end for score in scores for end in score if end is not None]
    room = max(0.01, 0.15 * (max(ends) - min(ends)))
    return max(0.0, min(ends) - room), min(1.0, max(ends) + room)


def _say_who_is_absent(panel: Any, absent: int, on_other_data: int) -> None:
    if not absent:
        return
    reasons = {"no data": absent - on_other_data, "other data": on_other_data}
    words = "not shown: " + ", ".join(
        f"{count} ({reason})" for reason, count in reasons.items() if count
    )
    panel.text(
        0.97, 0.04, words, transform=panel.transAxes, ha="right", fontsize=7, color=drawing.GREY
    )


def _legend(styles: Any, *, has_trend: bool) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle="none")
        for style in styles.values()
    ]
    labels = [style.label for style in styles.values()]
    handles.append(Line2D([], [], color=drawing.GREY, linewidth=1, linestyle="--"))
    labels.append("y = x")
    if has_trend:
        handles.append(Line2D([], [], color="black", linewidth=1.2))
        labels.append("trend over these models")
    return handles, labels
