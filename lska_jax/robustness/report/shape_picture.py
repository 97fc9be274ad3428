"""Shape bias of every class, as Geirhos et al. draw it (arXiv 1811.12231, figure 4).

Rows are classes, the axis runs from texture to shape, a vertical line is a model's average. For
comparison stand their published averages: humans 0.96, ResNet-50 0.21, on their 16 classes.
"""

from collections.abc import Sequence
from typing import Any, Literal

from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report import drawing
from lska_jax.robustness.report.drawing import Picture
from lska_jax.robustness.report.names import Key, part_title
from lska_jax.robustness.report.readings import parts_of, read

HUMAN_SHAPE_BIAS = 0.96
RESNET50_SHAPE_BIAS = 0.21
SHAPE_BIAS = "shape_bias"
CUE_CONFLICT = "cue_conflict"

_REFERENCES: tuple[tuple[str, float, Literal[":", "--"]], ...] = (
    ("humans", HUMAN_SHAPE_BIAS, ":"),
    ("ResNet-50", RESNET50_SHAPE_BIAS, "--"),
)
# What of the height of a row the markers of all models share.
_ROW_SHARE = 0.66


def shape_bias_by_class(summaries: Sequence[Summary]) -> Picture | None:
    """Draw the shape bias of every class and model; None where no model has one."""
    classes = sorted(parts_of(summaries, CUE_CONFLICT, SHAPE_BIAS))
    whole = Key(CUE_CONFLICT, SHAPE_BIAS)
    if not classes and not any(read(summary, whole).score for summary in summaries):
        return None
    styles = drawing.styles([summary.model.name for summary in summaries])
    height = 0.24 + 0.04 * len(summaries)
    figure, (panel,) = drawing.new_figure(1, 1, size=(7.2, 2.0 + height * max(4, len(classes))))
    absent = 0
    drawn = set()
    for number, summary in enumerate(summaries):
        style = styles[summary.model.name]
        offset = (number - (len(summaries) - 1) / 2) * _ROW_SHARE / max(2, len(summaries))
        for row, name in enumerate(classes):
            score = read(summary, Key(CUE_CONFLICT, SHAPE_BIAS, name)).score
            if score is None or score.value is None:
                absent += 1
                continue
            drawn.add(summary.model.name)
            panel.errorbar(
                [score.value],
                [row + offset],
                xerr=drawing.interval_lengths([score], scale=1.0),
                color=style.colour,
                marker=style.marker,
                markersize=6,
                elinewidth=0.8,
                alpha=0.9,
                clip_on=False,
            )
        average = read(summary, whole).score
        if average and average.value is not None:
            drawn.add(summary.model.name)
            panel.axvline(average.value, color=style.colour, linewidth=1.4, zorder=1)
    for _, value, line in _REFERENCES:
        panel.axvline(value, color=drawing.GREY, linewidth=1.2, linestyle=line, zorder=1)
    _finish(panel, classes)
    keys = [whole, *(Key(CUE_CONFLICT, SHAPE_BIAS, name) for name in classes)]
    labelled, sources = drawing.with_sources(styles, summaries, keys)
    drawing.legend_below(figure, *_legend(labelled, drawn))
    caption = (
        "Shape bias, the share of shape among decisions for shape or texture, by class, with 95 % "
        "bootstrap intervals; vertical lines are averages over all images. Humans (0.96) and "
        "ResNet-50 (0.21): as published by Geirhos et al. for their 16 classes, not measured here. "
        + sources
    )
    if absent:
        caption += f"There is no data for {absent} of the markers: no image was decided for either "
        caption += "cue, or there are none."
    return Picture("shape_bias", "Shape bias by class", caption.strip(), drawing.to_png(figure))


def _finish(panel: Any, classes: Sequence[str]) -> None:
    if classes:
        panel.set_yticks(range(len(classes)), [part_title(name) for name in classes])
    else:
        panel.set_yticks([])
        panel.text(0.5, 0.5, "no data by class", transform=panel.transAxes, ha="center")
    for row in range(0, len(classes), 2):
        panel.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", zorder=0)
    panel.set_ylim(max(1, len(classes)) - 0.5, -0.5)
    panel.set_xlim(0, 1)
    panel.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    panel.set_xlabel("texture  ←  shape bias  →  shape")
    drawing.tidy(panel, axis="x")


def _legend(styles: Any, drawn: set[str]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linewidth=1.4)
        for style in styles.values()
    ]
    labels = [
        style.label + ("" if name in drawn or "(no data)" in style.label else " (no data)")
        for name, style in styles.items()
    ]
    for name, value, line in _REFERENCES:
        handles.append(Line2D([], [], color=drawing.GREY, linewidth=1.2, linestyle=line))
        labels.append(f"{name} {value:.2f} (published)")
    return handles, labels
