"""Pictures of results: colours that colour-blind readers tell apart, a marker for each series."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import require

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color), without its yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Values that differ by less are compared on a linear axis.
_LOG_FROM_RATIO = 5
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def new_panels(rows: int, columns: int, *, size: tuple[float, float], **options: Any) -> Any:
    """Return a figure and its panels, always as a 2-D array of axes.

    Args:
      rows: of panels.
      columns: of panels.
      size: of the whole figure, width and height in inches.
      **options: of ``matplotlib.pyplot.subplots``.

    Raises:
      SystemExit: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "Drawing the results")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained", **options
    )


def styles(names: Sequence[str]) -> Mapping[str, dict[str, str]]:
    """Return a colour and a marker for each name."""
    return {
        name: {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index % len(_MARKERS)],
        }
        for index, name in enumerate(names)
    }


def scale_axis(panel: Any, values: Sequence[float]) -> None:
    """Make the y axis logarithmic with plain numbers, or start it at 0 where values are close."""
    from matplotlib import ticker

    if not values or min(values) <= 0 or max(values) < _LOG_FROM_RATIO * min(values):
        panel.set_ylim(bottom=0, top=1.1 * max(values, default=0) or 1)
        return
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(ticker.NullFormatter())


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and free it."""
    from matplotlib import pyplot

    for panel in figure.axes:
        panel.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    print(f"Wrote {path}.")
