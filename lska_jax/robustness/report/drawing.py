"""How the pictures of the report look: figures without global state, one style for each model."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lska_jax.robustness.cells import Score, Summary
from lska_jax.robustness.report.names import Key, printable
from lska_jax.robustness.report.readings import provenances

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color), without its yellow. Ten markers, so
# that colour and marker together tell 70 models apart; hatches do so for bars.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_HATCHES = ("", "////", "....", "xxxx")
GREY = "#595959"
LIGHT_GREY = "#BBBBBB"
DPI = 150
_LONGEST_NAME = 40
_LEGEND_COLUMN_INCHES = 0.75
_LETTER_INCHES = 0.085


class Style(NamedTuple):
    """How a model is drawn everywhere."""

    colour: str
    marker: str
    hatch: str
    label: str


class Picture(NamedTuple):
    """A drawn picture.

    Attributes:
      name: of its file, without ending.
      title: for the page.
      caption: what it shows and what is missing in it.
      png: the file.
    """

    name: str
    title: str
    caption: str
    png: bytes


def styles(names: Sequence[str]) -> Mapping[str, Style]:
    """Return colour, marker, hatch and label for each model."""
    return {
        name: Style(
            _COLOURS[index % len(_COLOURS)],
            _MARKERS[index % len(_MARKERS)],
            _HATCHES[index // len(_COLOURS) % len(_HATCHES)],
            label_of(name),
        )
        for index, name in enumerate(names)
    }


def with_sources(
    styles: Mapping[str, Style], summaries: Sequence[Summary], keys: Sequence[Key]
) -> tuple[Mapping[str, Style], str]:
    """Return the styles with labels that say whose images differ, and a sentence about them all.

    Args:
      styles: of the models.
      summaries: of the models.
      keys: of the scores in the picture.
    """
    of_models = {
        one.model.name: provenances(one.scores.get(str(key)) for key in keys) for one in summaries
    }
    found = sorted({name for names in of_models.values() for name in names})
    sentence = f"Images: {', '.join(found)}. " if found else ""
    if len(found) < 2:
        return styles, sentence
    labelled = {
        name: style._replace(label=f"{style.label} ({', '.join(of_models[name]) or 'no data'})")
        for name, style in styles.items()
    }
    return labelled, f"{sentence}Models measured on different images cannot be compared. "


def label_of(name: str) -> str:
    """Return a name that matplotlib shows as it is: no formulas, not too long.

    A label that begins with an underscore would be left out of legends.
    """
    text = printable(name)
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME - 9]}…{text[-8:]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def new_figure(
    rows: int, columns: int, *, size: tuple[float, float], **options: Any
) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, row by row.

    Args:
      rows: of panels.
      columns: of panels.
      size: of the whole figure, width and height in inches.
      **options: of ``matplotlib.figure.Figure.subplots``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(panels.flat)


def legend_below(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put one legend for all panels below them, in as many columns as fit."""
    width = figure.get_figwidth()
    longest = max(map(len, labels)) * _LETTER_INCHES + _LEGEND_COLUMN_INCHES
    room = max(1, min(len(labels), int(width / longest)))
    # As few columns as do with the same number of rows.
    columns = math.ceil(len(labels) / math.ceil(len(labels) / room))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def interval_lengths(scores: Sequence[Score], *, scale: float = 100.0) -> list[list[float]]:
    """Return how far the intervals reach below and above the values, 0 where there are none.

    The interval of a bootstrap need not hold the value; matplotlib draws no negative lengths.
    """
    below, above = [], []
    for score in scores:
        value = score.value or 0.0
        below.append(scale * max(0.0, value - (value if score.low is None else score.low)))
        above.append(scale * max(0.0, (value if score.high is None else score.high) - value))
    return [below, above]


def tidy(panel: Any, *, axis: Literal["both", "x", "y"] = "both") -> None:
    """Give a panel a light grid behind its data and no box."""
    panel.grid(True, axis=axis, color="#DDDDDD", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def to_png(figure: Any) -> bytes:
    """Return a figure as a PNG file, the same bytes each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that the font does not have are shown as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        FigureCanvasAgg(figure)
        figure.savefig(file, dpi=DPI, format="png", facecolor="white", metadata={"Software": None})
    return file.getvalue()
