"""Predicted label maps beside the true ones."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from lska_jax.data.decode import upright_pixels_of
from lska_jax.data.opening_label_maps import LabelMapSource
from lska_jax.data.plain_resize import resize_nearest
from lska_jax.data.sources import BrokenImage
from lska_jax.tasks.pictures.colours import class_colours
from lska_jax.tasks.pictures.label_maps import draw_label_map, draw_legend, put_beside
from lska_jax.tasks.pictures.sheet import draw_sheet

_WIDTH = 384
_LEGEND_HEIGHT = 640


def segmentation_sheet(
    predicted: Mapping[int, bytes], source: LabelMapSource, *, most: int = 8
) -> Image.Image:
    """Return a sheet of images, each true label map beside the predicted one.

    Args:
      predicted: label maps as PNG files of ids, by position in the source.
      source: the split; broken images are left out.
      most: how many images there are.
    """
    names = source.class_names
    rows, counts = [], np.zeros(256, np.int64)
    for position in sorted(predicted)[:most]:
        try:
            example = source[position]
            pixels = upright_pixels_of(example.image)
        except BrokenImage:
            continue
        with Image.open(io.BytesIO(predicted[position])) as stored:
            maps = (example.label_map, np.asarray(stored))
        for label_map in maps:
            counts += np.bincount(label_map.ravel(), minlength=256)
        rows.append((source.path(position), [_draw(pixels, one, names) for one in maps]))
    sheet = draw_sheet(rows, titles=("truth", "prediction"), width=_WIDTH)
    legend = draw_legend(
        counts,
        class_names=names,
        colours=class_colours(len(names)),
        height=min(sheet.height, _LEGEND_HEIGHT),
    )
    return put_beside(sheet, legend)


def _draw(pixels: np.ndarray, label_map: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """Draw a label map at the width of the sheet."""
    size = (max(1, round(pixels.shape[0] * _WIDTH / pixels.shape[1])), _WIDTH)
    image = np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))
    return draw_label_map(
        image,
        resize_nearest(label_map, size),
        class_names=class_names,
        use_legend=False,
        least_side=1,
    )
