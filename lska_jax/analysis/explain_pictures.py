"""Pictures of what a network looks at: maps over photos, squares of receptive fields, captions."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from lska_jax.analysis.receptive_field import SHARES, Extent
from lska_jax.robustness.report.drawing import Picture, label_of, new_figure, tidy, to_png

_Photo = UInt8[np.ndarray, "height width channels"]
_Map = Float[np.ndarray, "rows columns"]
# Letters of a caption for an inch of the figure, at its size.
_LETTERS_PER_INCH = 15.5
_CAPTION_SIZE = 8
# How much of a map, and how much of the grey photo below it.
_OPACITY = 0.6
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_SQUARE_COLOURS = ("#FFFFFF", "#56B4E9", "#E69F00", "#CC79A7")
# Below this share of the largest contribution the receptive field is shown black.
_DARKEST = 1e-4


def over_photo(
    photo: _Photo,
    values: _Map,
    *,
    name: str,
    title: str,
    caption: str,
    label: str,
    is_signed: bool = False,
    is_from_zero: bool = True,
) -> Picture:
    """Return a photo and beside it a map over it.

    Args:
      photo: as the network saw it.
      values: of the map; it is resized to the photo between the centres of its cells.
      name: of the file.
      title: of the picture.
      caption: what was computed.
      label: of the colours.
      is_signed: show values around 0 in two colours.
      is_from_zero: let the colours of others begin at 0, not at the smallest value.
    """
    figure, (left, right) = new_figure(1, 2, size=(8.2, 4.6))
    left.imshow(_drawable(photo))
    left.set_title("as the network sees it", fontsize=10)
    drawn = _draw_map(right, photo, values, is_signed=is_signed, is_from_zero=is_from_zero)
    figure.colorbar(drawn, ax=right, shrink=0.82, label=label)
    for panel in (left, right):
        panel.set_axis_off()
    return _finished(figure, name, title, caption)


def blocks_over_photo(
    photo: _Photo, maps: Mapping[str, _Map], *, name: str, title: str, caption: str
) -> Picture:
    """Return a photo with one signed map of each block over it, each with its own scale.

    Args:
      photo: as the network saw it.
      maps: {path of the block: map}.
      name: of the file.
      title: of the picture.
      caption: what was computed.
    """
    count = len(maps) + 1
    # As few gaps in the last row as can be.
    columns = min((7, 6, 5, 8), key=lambda wide: -count % wide) if count > 8 else count
    rows = -(-count // columns)
    figure, panels = new_figure(rows, columns, size=(1.75 * columns + 0.4, 2.1 * rows + 0.9))
    panels[0].imshow(_drawable(photo))
    panels[0].set_title("photo", fontsize=8)
    for panel, (path, values) in zip(panels[1:], maps.items(), strict=False):
        drawn = _draw_map(panel, photo, values, is_signed=True)
        panel.set_title(f"{_place_of(path)}: {values.shape[0]} x {values.shape[1]}", fontsize=8)
        bar = figure.colorbar(drawn, ax=panel, location="bottom", pad=0.01, shrink=0.9, aspect=28)
        bar.ax.tick_params(labelsize=6, length=2)
        bar.ax.locator_params(nbins=3)
    for panel in panels:
        panel.set_axis_off()
    panels[0].set_anchor("N")
    return _finished(figure, name, title, caption)


def receptive_fields(
    fields: Mapping[str, Float[np.ndarray, "height width"]],
    extents: Mapping[str, Sequence[Extent]],
    *,
    name: str,
    title: str,
    caption: str,
) -> Picture:
    """Return the contributions to the centre of every map, with the squares that hold the shares.

    Args:
      fields: P by the map's name.
      extents: of each.
      name: of the file.
      title: of the picture.
      caption: what was computed.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    columns = min(4, len(fields))
    rows = -(-len(fields) // columns)
    figure, panels = new_figure(rows, columns, size=(max(6.0, 2.9 * columns), 2.9 * rows + 1.3))
    for panel in panels[len(fields) :]:
        panel.set_visible(False)
    drawn = None
    for panel, (map_name, field) in zip(panels, fields.items(), strict=False):
        height, width = field.shape
        shown = np.clip(field / max(np.max(field), np.finfo(np.float64).tiny), _DARKEST, 1)
        drawn = panel.imshow(shown, cmap="inferno", norm=LogNorm(_DARKEST, 1))
        lines = []
        for extent, colour in zip(extents[map_name], _SQUARE_COLOURS, strict=False):
            words = f"{100 * extent.share:.0f} %"
            if extent.side is None:
                lines.append(f"{words} all")
                continue
            lines.append(f"{words} {extent.side}")
            corner = (width // 2 - extent.side / 2, height // 2 - extent.side / 2)
            panel.add_patch(
                Rectangle(corner, extent.side, extent.side, fill=False, edgecolor=colour, lw=1.1)
            )
        panel.set_title(f"{map_name}\n{' · '.join(lines)}", fontsize=8)
        panel.set_xlim(-0.5, width - 0.5)
        panel.set_ylim(height - 0.5, -0.5)
        panel.tick_params(labelsize=7)
    if drawn is not None:
        label = "P over its largest value"
        figure.colorbar(drawn, ax=panels[: len(fields)], shrink=0.75, aspect=30, label=label)
    return _finished(figure, name, title, caption)


def receptive_field_growth(
    extents: Mapping[str, Mapping[str, Sequence[Extent]]],
    kernel_sizes: Sequence[int] | None,
    *,
    name: str,
    title: str,
    caption: str,
) -> Picture:
    """Return how the squares of several models grow.

    Args:
      extents: of each map, by the map's name, by the model's name.
      kernel_sizes: k of each model, in their order; None shows the models' names.
      name: of the file.
      title: of the picture.
      caption: what was computed.
    """
    models = list(extents)
    maps = list(dict.fromkeys(of_map for found in extents.values() for of_map in found))
    places = np.arange(len(models)) if kernel_sizes is None else np.asarray(kernel_sizes)
    order = np.argsort(places, kind="stable")
    figure, panels = new_figure(1, len(SHARES), size=(3.0 * len(SHARES), 4.4), sharex=True)
    for index, (panel, share) in enumerate(zip(panels, SHARES, strict=True)):
        for number, of_map in enumerate(maps):
            sides = [
                next(
                    (e.side for e in extents[model].get(of_map, ()) if e.share == share and e.side),
                    np.nan,
                )
                for model in models
            ]
            panel.plot(
                places[order],
                np.asarray(sides, float)[order],
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                label=of_map,
            )
        panel.set_title(f"{100 * share:.0f} % of A", fontsize=10)
        panel.set_ylim(bottom=0)
        tidy(panel)
        if kernel_sizes is None:
            panel.set_xticks(places, [label_of(model) for model in models], rotation=60, ha="right")
            panel.tick_params(axis="x", labelsize=8)
        else:
            panel.set_xticks(sorted(set(places.tolist())))
            panel.set_xlabel("kernel size k")
        if not index:
            panel.set_ylabel("side of the square, pixels")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, fontsize=8, frameon=False, loc="lower right")
    return _finished(figure, name, title, caption)


def resized(values: _Map, height: int, width: int) -> Float[np.ndarray, "height width"]:
    """Return a map as large as a photo, linear between the centres of its cells."""
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def blend(
    photo: _Photo, values: _Map, *, is_signed: bool = False, is_from_zero: bool = True
) -> tuple[UInt8[np.ndarray, "height width 3"], Any]:
    """Return a map in colours over a grey photo, and what a bar of its colours is made of.

    Args:
      photo: as the network saw it.
      values: of the map; it is resized to the photo.
      is_signed: show values around 0 in two colours.
      is_from_zero: let the colours of others begin at 0, not at the smallest value.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width, _ = photo.shape
    if is_signed:
        reach = float(np.max(np.abs(values))) or 1.0
        norm, colours = Normalize(-reach, reach), colormaps["RdBu_r"]
    else:
        lowest = 0.0 if is_from_zero else float(np.min(values))
        norm, colours = Normalize(lowest, float(np.max(values)) or 1.0), colormaps["inferno"]
    grey = np.asarray(photo, np.float32).mean(axis=2, keepdims=True) / 255
    coloured = colours(norm(resized(values, height, width)))[..., :3]
    mixed = np.clip(_OPACITY * coloured + (1 - _OPACITY) * grey, 0, 1)
    return np.round(255 * mixed).astype(np.uint8), ScalarMappable(norm, colours)


def _draw_map(panel: Any, photo: _Photo, values: _Map, **colours: bool) -> Any:
    """Draw a map over a grey photo and return what a bar of its colours is made of."""
    mixed, bar = blend(photo, values, **colours)
    panel.imshow(mixed)
    return bar


def _drawable(photo: _Photo) -> UInt8[np.ndarray, "height width 3"]:
    return np.repeat(photo, 3, axis=2) if photo.shape[2] == 1 else photo


def _place_of(path: str) -> str:
    """Return "stage 2, block 1" of "stages/1/blocks/0/attention/gate"."""
    parts = path.split("/")
    words = [
        f"{kind} {int(parts[parts.index(plural) + 1]) + 1}"
        for kind, plural in (("stage", "stages"), ("block", "blocks"))
        if plural in parts
    ]
    return ", ".join(words) or path


def _finished(figure: Any, name: str, title: str, caption: str) -> Picture:
    # Matplotlib would read dollars as formulas.
    width = int(figure.get_figwidth() * _LETTERS_PER_INCH)
    lines = "\n".join(textwrap.wrap(caption, width)).replace("$", r"\$")
    figure.suptitle(
        textwrap.shorten(title, width, placeholder=" …").replace("$", r"\$"), fontsize=11
    )
    figure.supxlabel(lines, x=0.012, ha="left", fontsize=_CAPTION_SIZE, color="#444444")
    return Picture(name, title, caption, to_png(figure))
