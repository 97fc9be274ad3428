"""Scores against the kernel size k: one panel a score, one line for each attention and model size.

Models of one line and one k, for example several seeds of one recipe, are single points, and their
mean is a point of its own, on the line.
"""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lska_jax.robustness.cells import Score, Summary
from lska_jax.robustness.report import drawing
from lska_jax.robustness.report.names import Key, set_title
from lska_jax.robustness.report.readings import WORDS, Reading, read
from lska_jax.robustness.scores import score_facts

_ATTENTIONS = {
    "lska": "LSKA",
    "lka": "LKA",
    "lska_trivial": "LSKA-trivial",
    "lka_trivial": "LKA-trivial",
}
# Two models are of one size if their parameters are within this factor, or a chain of others
# between them is: k moves them by 2 %, the next size of VAN by at least 34 % (B3 to B4).
_SAME_SIZE = 1.25
# How far points of one k stand apart, as a share of the range of k.
_STEP = 0.045
# In such steps: between lines, and from a mean to the models farthest from it.
_LINE_STEPS = 1.3
_SPREAD = 0.4
# A single k has no range of its own.
_MIN_RANGE = 10
_NOTE_WIDTH = 150
_NO_DATA = "no data"
_OTHER_DATA = "other data"


class Measured(NamedTuple):
    """A model with known k, and what it scored.

    Attributes:
      summary: its scores.
      k: kernel size.
      attention: as in ``ModelStamp.facts``.
      line: title of the line that it is a point of.
    """

    summary: Summary
    k: int
    attention: str
    line: str


def with_kernel_size(summaries: Sequence[Summary]) -> list[Measured]:
    """Return the models whose facts name a whole k, each with the line that it belongs to.

    A line is an attention; where the models are of several sizes, an attention and a size.
    """
    models = [one for one in summaries if kernel_size(one) is not None]
    sizes = _sizes([one.model.facts.get("parameters") for one in models])
    found = []
    for summary, size in zip(models, sizes, strict=True):
        attention = str(summary.model.facts.get("attention", "attention not known"))
        title = _ATTENTIONS.get(attention, drawing.label_of(attention))
        line = f"{title}, {size}" if len(set(sizes)) > 1 else title
        found.append(Measured(summary, kernel_size(summary) or 0, attention, line))
    return found


def kernel_size(summary: Summary) -> int | None:
    """Return a model's k, or None where its facts name no positive whole number."""
    try:
        k = float(summary.model.facts["k"])
    except (KeyError, TypeError, ValueError):
        return None
    return int(k) if k > 0 and k.is_integer() else None


def points_by_k(
    models: Sequence[Measured], key: Key, provenance: str
) -> dict[tuple[str, int], list[Score]]:
    """Return the numbers of one provenance by (line, k)."""
    found: dict[tuple[str, int], list[Score]] = {}
    for model in models:
        reading = read(model.summary, key)
        if reading.score and _comes_from(reading, provenance):
            found.setdefault((model.line, model.k), []).append(reading.score)
    return found


def means_by_k(
    models: Sequence[Measured], key: Key, provenance: str
) -> dict[tuple[str, int], float]:
    """Return the means of the numbers of one provenance by (line, k)."""
    return {
        place: statistics.fmean(score.value or 0.0 for score in scores)
        for place, scores in points_by_k(models, key, provenance).items()
    }


def scores_against_k(
    models: Sequence[Measured], keys: Sequence[Key], *, without_k: Sequence[str]
) -> bytes:
    """Return the figure as a PNG file.

    A panel holds numbers of one provenance, the most common one; what is left out is named.

    Args:
      models: with their k.
      keys: of the panels.
      without_k: names of models that cannot be drawn; the figure says so.
    """
    ordered = sorted(models, key=_lska_first)
    lines = list(dict.fromkeys(model.line for model in ordered))
    styles = drawing.styles(lines)
    kernel_sizes = sorted({model.k for model in models})
    step = _STEP * max(_MIN_RANGE, kernel_sizes[-1] - kernel_sizes[0])
    places = _places(models, lines, step=step)
    figure, panels = drawing.new_figure(1, len(keys), size=(3.7 * len(keys), 4.1))
    has_means = False
    for panel, key in zip(panels, keys, strict=True):
        provenance = _common_provenance([read(model.summary, key) for model in models])
        points = points_by_k(models, key, provenance)
        means = means_by_k(models, key, provenance)
        has_means |= any(len(scores) > 1 for scores in points.values())
        for (line, k), scores in points.items():
            _draw_points(panel, places[line, k], scores, styles[line], step=step)
        for line in lines:
            own = sorted(k for name, k in places if name == line)
            panel.plot(
                [places[line, k] for k in own],
                # A gap in the line where nothing was measured.
                [100 * means.get((line, k), math.nan) for k in own],
                color=styles[line].colour,
                linewidth=1.4,
            )
        _finish(panel, key, provenance, kernel_sizes)
        _draw_gaps(panel, _absent(models, key, provenance))
    if without_k:
        names = ", ".join(map(drawing.label_of, without_k))
        text = textwrap.fill(f"not drawn, without k: {names}", _NOTE_WIDTH)
        figure.suptitle(text, fontsize=8, color=drawing.GREY)
    drawing.legend_below(figure, *_legend(styles, has_means=has_means))
    return drawing.to_png(figure)


def _lska_first(model: Measured) -> tuple[bool, str, float]:
    parameters = model.summary.model.facts.get("parameters")
    size = float(parameters) if isinstance(parameters, int | float) else 0.0
    return model.attention != "lska", model.attention, size


def _sizes(parameters: Sequence[Any]) -> list[str]:
    """Return the size of each model in words, the same for models of about one size."""
    known = sorted({p for p in parameters if isinstance(p, int | float) and p > 0})
    titles: dict[Any, str] = {}
    first = previous = 0.0
    for number in known:
        if number > _SAME_SIZE * previous:
            first = number
        titles[number] = f"{first / 1e6:.1f} M"
        previous = number
    return [titles.get(p, "size not known") for p in parameters]


def _common_provenance(readings: Sequence[Reading]) -> str:
    kinds = [one.stamped.provenance for one in readings if one.score and one.stamped]
    return max(kinds, key=kinds.count, default="")


def _comes_from(reading: Reading, provenance: str) -> bool:
    return reading.stamped is not None and reading.stamped.provenance == provenance


def _places(
    models: Sequence[Measured], lines: Sequence[str], *, step: float
) -> dict[tuple[str, int], float]:
    """Return where on the axis each (line, k) stands: beside others of the same k."""
    places = {}
    for k in {model.k for model in models}:
        present = {model.line for model in models if model.k == k}
        names = [line for line in lines if line in present]
        for number, name in enumerate(names):
            places[name, k] = k + _LINE_STEPS * step * (number - (len(names) - 1) / 2)
    return places


def _draw_points(
    panel: Any, place: float, scores: Sequence[Score], style: drawing.Style, *, step: float
) -> None:
    """Draw the models of one line and k, on both sides of their mean if they are several."""
    values = [100 * (score.value or 0.0) for score in scores]
    is_single = len(values) == 1
    for number, (score, value) in enumerate(zip(scores, values, strict=True)):
        aside = 0.0 if is_single else step * _SPREAD * (2 * number / (len(values) - 1) - 1)
        panel.errorbar(
            [place + aside],
            [value],
            yerr=drawing.interval_lengths([score]),
            color=style.colour,
            marker=style.marker,
            markersize=6 if is_single else 5,
            markerfacecolor=style.colour if is_single else "white",
            elinewidth=0.8,
            linestyle="none",
        )
    if not is_single:
        mean = statistics.fmean(values)
        panel.plot([place], [mean], color=style.colour, marker=style.marker, markersize=8, zorder=4)


def _absent(models: Sequence[Measured], key: Key, provenance: str) -> dict[int, list[str]]:
    """Return for each k what has no point there, and why."""
    words: dict[int, list[str]] = {}
    for model in models:
        reading = read(model.summary, key)
        if not reading.score or not _comes_from(reading, provenance):
            reason = _OTHER_DATA if reading.score else _NO_DATA
            words.setdefault(model.k, []).append(f"{reason}: {model.line}")
    return words


def _draw_gaps(panel: Any, absent: Mapping[int, Sequence[str]]) -> None:
    if absent:
        # Room for the words, below the points.
        low, high = panel.get_ylim()
        panel.set_ylim(low - 0.5 * (high - low), high)
    for k, words in absent.items():
        text = "\n".join(
            word + (f" x{words.count(word)}" if words.count(word) > 1 else "")
            for word in dict.fromkeys(words)
        )
        panel.text(
            k,
            0.03,
            text,
            transform=panel.get_xaxis_transform(),
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            color=drawing.GREY,
        )


def _finish(panel: Any, key: Key, provenance: str, kernel_sizes: Sequence[int]) -> None:
    facts = score_facts(key.score)
    of_alexnet = " of AlexNet" if key.score.startswith("mce_") else ""
    panel.set_title(f"{set_title(key.set)}: {facts.label}", fontsize=10.5)
    source = f", {provenance}" if provenance else ""
    panel.set_ylabel(f"{facts.label} (%{of_alexnet}{source}) {facts.arrow}".rstrip())
    panel.set_xlabel("kernel size k")
    panel.set_xticks(kernel_sizes)
    room = max(2.0, 0.08 * (kernel_sizes[-1] - kernel_sizes[0]))
    panel.set_xlim(kernel_sizes[0] - room, kernel_sizes[-1] + room)
    panel.margins(y=0.15)
    if not provenance:
        panel.set_ylim(0, 100)
        panel.text(
            0.5, 0.6, WORDS["missing"], transform=panel.transAxes, ha="center", color=drawing.GREY
        )
    drawing.tidy(panel)


def _legend(styles: Mapping[str, drawing.Style], *, has_means: bool) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linewidth=1.4)
        for style in styles.values()
    ]
    labels = list(styles)
    if has_means:
        handles.append(
            Line2D([], [], color=drawing.GREY, marker="o", markerfacecolor="white", linestyle="")
        )
        labels.append("single models; filled: their mean")
    return handles, labels
