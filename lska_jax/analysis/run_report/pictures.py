"""Pictures of training runs: curves, the confusion matrix, classes, mistakes, batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from lska_jax.analysis.run_report.history import Curve, History
from lska_jax.analysis.run_report.outcomes import Outcomes, TrainingBatch
from lska_jax.robustness.report.drawing import (
    Picture,
    Style,
    label_of,
    legend_below,
    new_figure,
    tidy,
    to_png,
)

# Beyond that a matrix is drawn without names and numbers.
_MOST_NAMED_CLASSES = 24
_SHOWN_CLASSES = 10
_GRID_COLUMNS = 6
_LONGEST_CLASS_NAME = 18


def curves(runs: Sequence[History], styles: Mapping[str, Style]) -> Picture | None:
    """Return loss, accuracy, learning rate and speed over the steps, all runs in each panel.

    Args:
      runs: in the order of the legend.
      styles: by the run's name.
    """
    panels_wanted = (
        ("loss: training, evaluation (dashed)", ("train/loss", "eval/loss"), 1.0),
        ("accuracy, %: top-1, top-5 (dashed)", ("eval/top1", "eval/top5"), 100.0),
        ("learning rate", ("train/learning_rate",), 1.0),
        ("images/s", ("train/images_per_second",), 1.0),
    )
    found = [
        wanted
        for wanted in panels_wanted
        if any(name in run.curves for run in runs for name in wanted[1])
    ]
    if not found:
        return None
    figure, panels = new_figure(-(-len(found) // 2), 2, size=(9.5, 2.9 * -(-len(found) // 2) + 0.6))
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    handles: dict[str, Any] = {}
    for panel, (title, names, scale) in zip(panels, found, strict=False):
        for run in runs:
            for name in names:
                if name not in run.curves:
                    continue
                is_dashed = name != names[0]
                line = _draw(
                    panel, run.curves[name], styles[run.name], scale=scale, is_dashed=is_dashed
                )
                if not is_dashed:
                    handles.setdefault(styles[run.name].label, line)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step", fontsize=9)
        panel.ticklabel_format(axis="x", style="plain")
        tidy(panel)
    if len(runs) > 1:
        legend_below(figure, list(handles.values()), list(handles))
    return Picture(
        "curves",
        "Loss, accuracy, learning rate, speed",
        "Training: means over the steps between two records; the loss includes label smoothing and "
        "mixing, which that of an evaluation does not. Evaluation: of the averaged weights where "
        "the run keeps an average. Images/s leave evaluations out.",
        to_png(figure),
    )


def confusion(outcomes: Outcomes, *, run: str) -> Picture:
    """Return the confusion matrix, rows by the true class.

    Args:
      outcomes: of the run.
      run: its name.
    """
    counts = outcomes.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(counts)
    side = min(9.0, max(4.6, 1.6 + 0.42 * classes))
    figure, (panel,) = new_figure(1, 1, size=(side + 0.6, side))
    drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    if classes <= _MOST_NAMED_CLASSES:
        names = [_short(name) for name in outcomes.class_names]
        panel.set_xticks(range(classes), names, rotation=90, fontsize=8)
        panel.set_yticks(range(classes), names, fontsize=8)
        for row, column in np.ndindex(classes, classes):
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.55 else "black"
                text = str(counts[row, column])
                panel.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(drawn, ax=panel, shrink=0.8, label="share of the true class")
    return Picture(
        f"{run}.confusion",
        f"{run}: confusion matrix",
        f"Every usable example of {outcomes.split}, step {outcomes.step}; rows are the true "
        "classes and add up to 1, numbers are examples.",
        to_png(figure),
    )


def classes(outcomes: Outcomes, *, run: str) -> Picture:
    """Return the accuracy of the best and of the worst classes.

    Args:
      outcomes: of the run.
      run: its name.
    """
    counts = outcomes.confusion
    totals = counts.sum(axis=1)
    seen = np.flatnonzero(totals)
    accuracies = np.diag(counts)[seen] / totals[seen]
    order = seen[np.argsort(-accuracies, kind="stable")]
    if len(order) > 2 * _SHOWN_CLASSES:
        order = np.concatenate([order[:_SHOWN_CLASSES], order[-_SHOWN_CLASSES:]])
    shown = np.diag(counts)[order] / totals[order]
    figure, (panel,) = new_figure(1, 1, size=(7.5, 1.2 + 0.28 * len(order)))
    places = np.arange(len(order))
    panel.barh(places, 100 * shown, color="#0072B2", height=0.7)
    for place, share, label in zip(places, shown, order, strict=True):
        words = f"{100 * share:.1f} % of {totals[label]}"
        panel.text(100 * share + 1, place, words, va="center", fontsize=8)
    panel.set_yticks(places, [_short(outcomes.class_names[label], 30) for label in order])
    panel.tick_params(axis="y", labelsize=8)
    panel.invert_yaxis()
    panel.set_xlim(0, 118)
    panel.set_xticks(range(0, 101, 20))
    panel.set_xlabel("top-1, %")
    tidy(panel, axis="x")
    left_out = len(seen) - len(order)
    between = f"; {left_out} classes between them are left out" if left_out else ""
    return Picture(
        f"{run}.classes",
        f"{run}: best and worst classes",
        f"Share of each class's examples of {outcomes.split} that is named right, best first"
        f"{between}.",
        to_png(figure),
    )


def mistakes(outcomes: Outcomes, *, run: str) -> Picture | None:
    """Return the images that the model is most confidently wrong about.

    Args:
      outcomes: of the run.
      run: its name.
    """
    if not outcomes.mistakes:
        return None
    names = outcomes.class_names
    titles = [
        f"{_short(names[one.predicted])} {100 * one.probability:.0f} %\n"
        f"is {_short(names[one.label])} {100 * one.of_label:.0f} %"
        for one in outcomes.mistakes
    ]
    return _grid(
        [one.image for one in outcomes.mistakes],
        titles,
        name=f"{run}.mistakes",
        title=f"{run}: most confidently wrong",
        caption="As the network sees them: what it says and how sure it is, and below it the label "
        "and its probability. Some will be wrong labels.",
    )


def batch(seen: TrainingBatch, class_names: Sequence[str], *, run: str) -> Picture:
    """Return rows of a training batch after all augmentation.

    Args:
      seen: the batch.
      class_names: in label order.
      run: its name.
    """
    titles = []
    for target in seen.targets:
        # Smoothing gives every class a little; what mixing gives is more.
        floor = 2 * float(np.min(target)) + 1e-6
        best = [n for n in np.argsort(-target, kind="stable")[:2].tolist() if target[n] > floor]
        shown = (f"{_short(class_names[n])} {100 * target[n]:.0f} %" for n in best)
        titles.append("\n".join(shown))
    return _grid(
        list(seen.images),
        titles,
        name=f"{run}.batch",
        title=f"{run}: a training batch",
        caption=f"The first {len(titles)} rows of step {seen.step}, cropped, flipped, augmented, "
        "erased and mixed as that step saw them, with the targets of the loss (label smoothing "
        "included). The noise of erased places is cut to the range of pixels.",
    )


def _draw(panel: Any, curve: Curve, style: Style, *, scale: float, is_dashed: bool) -> Any:
    (line,) = panel.plot(
        curve.steps,
        scale * curve.values,
        color=style.colour,
        linestyle="--" if is_dashed else "-",
        linewidth=1.6,
        marker=style.marker if len(curve.steps) < 40 else "",
        markersize=4,
    )
    return line


def _grid(
    images: Sequence[Float[np.ndarray, "height width channels"]],
    titles: Sequence[str],
    *,
    name: str,
    title: str,
    caption: str,
) -> Picture:
    rows = -(-len(images) // _GRID_COLUMNS)
    figure, panels = new_figure(rows, _GRID_COLUMNS, size=(9.6, 1.95 * rows))
    for panel in panels:
        panel.set_axis_off()
    for panel, image, words in zip(panels, images, titles, strict=False):
        shown = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        panel.imshow(shown, interpolation="nearest", vmin=0, vmax=1)
        panel.set_title(words, fontsize=8)
    return Picture(name, title, caption, to_png(figure))


def _short(name: str, length: int = _LONGEST_CLASS_NAME) -> str:
    """Return the first of a class's names, not too long, as matplotlib shows it."""
    first = name.partition(",")[0]
    return label_of(first if len(first) <= length else f"{first[: length - 1]}…")
