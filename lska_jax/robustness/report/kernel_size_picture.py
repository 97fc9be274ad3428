"""Scores against the kernel size k: one panel a score, one line an attention."""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lska_jax.robustness.cells import StampedScore, Summary
from lska_jax.robustness.report import drawing
from lska_jax.robustness.report.names import Key, set_title
from lska_jax.robustness.report.readings import (
    WORDS,
    Reading,
    provenances,
    read,
)
from lska_jax.robustness.scores import score_facts

_ATTENTIONS = {
    "lska": "LSKA",
    "lka": "LKA",
    "lska_trivial": "LSKA-trivial",
    "lka_trivial": "LKA-trivial",
}
_LSKA = "lska"
# How far points of one k stand apart, as a share of the range of k.
_STEP = 0.045
# In such steps: between attentions, and from a mean to the models farthest from it.
_ATTENTION_STEPS = 1.3
_SPREAD = 0.4
_NOTE_WIDTH = 150
# A single k has no range of its own.
_MIN_RANGE = 10
_NO_DATA = "no data"
_OTHER_DATA = "other data"


class Measured(NamedTuple):
    """A model with known k, and what it scored."""

    summary: Summary
    k: int
    attention: str


def scores_against_k(
    models: Sequence[Measured], keys: Sequence[Key], *, without_k: Sequence[str]
) -> bytes:
    """Return the figure as a PNG file.

    Args:
      models: with their k.
      keys: of the panels.
      without_k: names of models that cannot be drawn; the figure says so.
    """
    attentions = sorted({model.attention for model in models}, key=_lska_first)
    styles = drawing.styles(attentions)
    figure, panels = drawing.new_figure(1, len(keys), size=(3.7 * len(keys), 4.1))
    kernel_sizes = sorted({model.k for model in models})
    step = _STEP * max(_MIN_RANGE, kernel_sizes[-1] - kernel_sizes[0])
    places = _places(models, step=step)
    has_means = False
    notes = [f"not drawn, without k: {', '.join(map(drawing.label_of, without_k))}"]
    notes = notes if without_k else []
    for panel, key in zip(panels, keys, strict=True):
        readings = [read(model.summary, key) for model in models]
        common = _common_provenance(readings)
        drawn = [
            (model, reading if reading.score and _comes_from(reading, common) else None)
            for model, reading in zip(models, readings, strict=True)
        ]
        absent = [
            (model, _OTHER_DATA if reading.score else _NO_DATA)
            for model, reading in zip(models, readings, strict=True)
            if not reading.score or not _comes_from(reading, common)
        ]
        found = provenances(reading.stamped for reading in readings)
        if len(found) > 1:
            others = sum(1 for one in readings if one.score and not _comes_from(one, common))
            notes.append(f"{set_title(key.set)}: not drawn, other data than {common}: {others}")
        for attention in attentions:
            own = [(model, reading) for model, reading in drawn if model.attention == attention]
            has_means |= _draw_line(panel, own, styles[attention], places, step=step)
        _finish(panel, key, common, kernel_sizes)
        _draw_gaps(panel, absent)
    if notes:
        lines = [line for note in notes for line in textwrap.wrap(note, _NOTE_WIDTH)]
        figure.suptitle("\n".join(lines), fontsize=8, color=drawing.GREY)
    drawing.legend_below(figure, *_legend(styles, has_means=has_means))
    return drawing.to_png(figure)


def _common_provenance(readings: Sequence[Reading]) -> str:
    kinds = [one.stamped.provenance for one in readings if one.score and one.stamped]
    return max(kinds, key=kinds.count, default="")


def _comes_from(reading: Reading, provenance: str) -> bool:
    return reading.stamped is not None and reading.stamped.provenance == provenance


def _places(models: Sequence[Measured], *, step: float) -> dict[tuple[str, int], float]:
    """Return where on the axis each (attention, k) stands: beside others of the same k."""
    places = {}
    for k in {model.k for model in models}:
        names = sorted({model.attention for model in models if model.k == k}, key=_lska_first)
        for number, name in enumerate(names):
            places[name, k] = k + _ATTENTION_STEPS * step * (number - (len(names) - 1) / 2)
    return places


def _lska_first(attention: str) -> tuple[bool, str]:
    return attention != _LSKA, attention


def _draw_line(
    panel: Any,
    own: Sequence[tuple[Measured, Reading | None]],
    style: drawing.Style,
    place_of: Mapping[tuple[str, int], float],
    *,
    step: float,
) -> bool:
    """Draw the models of one attention; tell whether there are means over several of one k.

    The models of one attention and k stand on both sides of its place, not on each other.
    """
    by_k: dict[int, list[StampedScore]] = {}
    for model, reading in own:
        scores = by_k.setdefault(model.k, [])
        if reading and reading.stamped:
            scores.append(reading.stamped)
    has_means = False
    places, means = [], []
    for k, stamped in sorted(by_k.items()):
        place = place_of[own[0][0].attention, k]
        places.append(place)
        values = [100 * (one.score.value or 0.0) for one in stamped]
        # A gap in the line where nothing was measured.
        means.append(statistics.fmean(values) if values else math.nan)
        has_means |= len(values) > 1
        for number, (one, value) in enumerate(zip(stamped, values, strict=True)):
            spread = (
                step * _SPREAD * (2 * number / (len(values) - 1) - 1) if len(values) > 1 else 0.0
            )
            panel.errorbar(
                [place + spread],
                [value],
                yerr=drawing.interval_lengths([one.score]),
                color=style.colour,
                marker=style.marker,
                markersize=6 if len(values) == 1 else 5,
                markerfacecolor=style.colour if len(values) == 1 else "white",
                elinewidth=0.8,
                linestyle="none",
                zorder=2,
            )
    panel.plot(places, means, color=style.colour, linewidth=1.4, zorder=3)
    several = [len(stamped) > 1 for _, stamped in sorted(by_k.items())]
    panel.plot(
        [place for place, is_mean in zip(places, several, strict=True) if is_mean],
        [mean for mean, is_mean in zip(means, several, strict=True) if is_mean],
        color=style.colour,
        marker=style.marker,
        markersize=8,
        linestyle="none",
        zorder=4,
    )
    return has_means


def _draw_gaps(panel: Any, absent: Sequence[tuple[Measured, str]]) -> None:
    """Write at each k what has no point there, and why."""
    words_at: dict[int, list[str]] = {}
    for model, reason in absent:
        words_at.setdefault(model.k, []).append(f"{reason}: {label_of_attention(model.attention)}")
    if absent:
        # Room for the words, below the points.
        low, high = panel.get_ylim()
        panel.set_ylim(low - 0.5 * (high - low), high)
    for k, words in words_at.items():
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


def label_of_attention(name: str) -> str:
    """Return how an attention is called in print."""
    return _ATTENTIONS.get(name, drawing.label_of(name))


def _finish(panel: Any, key: Key, provenance: str, kernel_sizes: Sequence[int]) -> None:
    facts = score_facts(key.score)
    of_alexnet = " of AlexNet" if key.score.startswith("mce_") else ""
    label = "clean top-1" if key.score == "top1" else facts.label
    panel.set_title(f"{set_title(key.set)}: {label}", fontsize=10.5)
    source = f", {provenance}" if provenance else ""
    panel.set_ylabel(f"{label} (%{of_alexnet}{source}) {facts.arrow}".rstrip())
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
    labels = [label_of_attention(name) for name in styles]
    if has_means:
        handles.append(
            Line2D([], [], color=drawing.GREY, marker="o", markerfacecolor="white", linestyle="")
        )
        labels.append("single models; filled: their mean")
    return handles, labels
