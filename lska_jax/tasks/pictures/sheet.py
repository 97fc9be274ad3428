"""Many pictures on one sheet, each prediction beside its truth."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from lska_jax.tasks.pictures.text import draw_text, shorten

_GAP = 10
_TEXT = 16
_LINE = 24
_INK, _FAINT, _PAPER = (20, 20, 20), (90, 90, 90), (255, 255, 255)


def draw_sheet(
    rows: Sequence[tuple[str, Sequence[Image.Image]]],
    *,
    titles: Sequence[str],
    rows_across: int = 2,
    width: int = 384,
) -> Image.Image:
    """Return pictures in a grid: the rows one below another, and several such columns.

    Args:
      rows: caption and pictures of each, as many as there are titles.
      titles: of the pictures of a row.
      rows_across: how many rows are put side by side.
      width: of each picture, in pixels; heights follow.
    """
    across = max(1, min(rows_across, len(rows)))
    block = len(titles) * (width + _GAP)
    scaled = [
        (caption, [_to_width(picture, width) for picture in pictures]) for caption, pictures in rows
    ]
    heights = [
        max(
            picture.height for _, pictures in scaled[start : start + across] for picture in pictures
        )
        for start in range(0, len(scaled), across)
    ]
    total = _LINE + _GAP + sum(height + _LINE + _GAP for height in heights)
    sheet = Image.new("RGB", (across * (block + _GAP), total), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(across):
        for number, title in enumerate(titles):
            left = _GAP + column * (block + _GAP) + number * (width + _GAP)
            draw_text(draw, (left, _GAP // 2), title, size=_TEXT, colour=_INK)
    top = _LINE + _GAP
    for start, height in zip(range(0, len(scaled), across), heights, strict=True):
        for column, (caption, pictures) in enumerate(scaled[start : start + across]):
            left = _GAP + column * (block + _GAP)
            text = shorten(caption, _TEXT - 3, width=block - _GAP)
            draw_text(draw, (left, top), text, size=_TEXT - 3, colour=_FAINT)
            for number, picture in enumerate(pictures):
                sheet.paste(picture, (left + number * (width + _GAP), top + _LINE - 4))
        top += height + _LINE + _GAP
    return sheet


def _to_width(picture: Image.Image, width: int) -> Image.Image:
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
