"""Drawings of CIFAR-10's ten classes as a source: a network of these classes runs at once.

A drawing is a function of (split, index): a background, and a thing of plain shapes on it, whose
place, size, colours and light differ from one to the next. They are no photographs and stand in for
none: what a network trained on photographs makes of them says that everything runs, and little
about the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lska_jax.data.sources import Extent, MissingSplit, Record, SourceFacts, check_index

NAME = "drawings"
SPLIT_TO_MEASURE = "test"
NOTE = "drawings, no photographs: that it runs, not how good the model is"
SIDE = 64
_PAPER = 2 * SIDE  # what is drawn on, before it is reduced
_NUM_EXAMPLES = {"train": 800, "test": 200}
_STREAMS = {"train": 0, "test": 1}

Colour = tuple[int, int, int]
_SKY, _PALE_SKY, _SEA = (105, 160, 215), (200, 220, 235), (40, 90, 135)
_GRASS, _DRY_GRASS, _SOIL = (85, 125, 55), (150, 145, 85), (110, 90, 65)
_ROAD, _WALL, _FLOOR = (120, 120, 122), (190, 180, 165), (150, 120, 95)
_DARK, _GLASS, _WHITE = (30, 30, 34), (70, 90, 110), (235, 235, 230)


class _Pen:
    """Draws in units of the thing, x to the right and y down, from 0 to 1."""

    def __init__(self, paper: Image.Image, rng: np.random.Generator):
        self.rng = rng
        self._draw = ImageDraw.Draw(paper)
        size = rng.uniform(0.88, 1.08)
        self._size = (-size if rng.random() < 0.5 else size, size * rng.uniform(0.9, 1.1))
        self._middle = rng.uniform(0.46, 0.54, 2)

    def any_of(self, *colours: Colour) -> Colour:
        """Return one of some colours, a little lighter or darker."""
        chosen = np.array(colours[self.rng.integers(len(colours))]) * self.rng.uniform(0.8, 1.15)
        red, green, blue = np.clip(chosen, 0, 255).astype(int)
        return int(red), int(green), int(blue)

    def shape(self, colour: Colour, *points: tuple[float, float]) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._placed(points), fill=colour)

    def oval(self, colour: Colour, x: float, y: float, width: float, height: float) -> None:
        """Fill an ellipse around (x, y)."""
        (left, top), (right, bottom) = self._placed(
            [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
        )
        self._draw.ellipse([min(left, right), top, max(left, right), bottom], fill=colour)

    def box(self, colour: Colour, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a rectangle."""
        self.shape(colour, (left, top), (right, top), (right, bottom), (left, bottom))

    def line(self, colour: Colour, width: float, *points: tuple[float, float]) -> None:
        """Draw a line of some width."""
        self._draw.line(
            self._placed(points), fill=colour, width=round(width * _PAPER), joint="curve"
        )

    def _placed(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [
            (
                float(self._middle[0] + self._size[0] * (x - 0.5)) * _PAPER,
                float(self._middle[1] + self._size[1] * (y - 0.5)) * _PAPER,
            )
            for x, y in points
        ]


def _airplane(pen: _Pen) -> None:
    body = pen.any_of(_WHITE, (200, 205, 212), (160, 168, 178))
    wing = pen.any_of((150, 155, 165), (120, 125, 135))
    pen.shape(wing, (0.42, 0.48), (0.58, 0.48), (0.40, 0.26), (0.33, 0.26))
    pen.shape(body, (0.08, 0.28), (0.17, 0.28), (0.27, 0.48), (0.12, 0.50))
    pen.shape(body, (0.09, 0.47), (0.80, 0.43), (0.93, 0.50), (0.80, 0.57), (0.15, 0.53))
    pen.shape(wing, (0.40, 0.52), (0.60, 0.52), (0.36, 0.80), (0.26, 0.80))
    pen.box(_GLASS, 0.80, 0.455, 0.86, 0.48)


def _automobile(pen: _Pen) -> None:
    paint = pen.any_of((185, 30, 35), (40, 70, 150), (210, 210, 212), (60, 62, 66), (220, 180, 40))
    pen.shape(paint, (0.22, 0.48), (0.34, 0.30), (0.64, 0.30), (0.78, 0.48))
    pen.shape(_GLASS, (0.28, 0.47), (0.37, 0.33), (0.49, 0.33), (0.49, 0.47))
    pen.shape(_GLASS, (0.52, 0.47), (0.52, 0.33), (0.62, 0.33), (0.72, 0.47))
    pen.shape(
        paint, (0.05, 0.50), (0.20, 0.46), (0.80, 0.46), (0.95, 0.53), (0.95, 0.67), (0.05, 0.67)
    )
    pen.box(_DARK, 0.05, 0.65, 0.95, 0.69)
    for x in (0.25, 0.75):
        pen.oval(_DARK, x, 0.67, 0.19, 0.19)
        pen.oval((165, 165, 170), x, 0.67, 0.09, 0.09)
    pen.oval((250, 240, 190), 0.92, 0.54, 0.06, 0.05)


def _bird(pen: _Pen) -> None:
    feathers = pen.any_of((120, 85, 55), (90, 100, 120), (60, 60, 65), (170, 110, 60))
    breast = pen.any_of((215, 190, 160), (200, 120, 70))
    pen.shape(feathers, (0.02, 0.66), (0.10, 0.56), (0.36, 0.50), (0.36, 0.62))
    pen.oval(feathers, 0.48, 0.50, 0.48, 0.36)
    pen.oval(breast, 0.54, 0.56, 0.34, 0.26)
    pen.oval(feathers, 0.70, 0.32, 0.23, 0.22)
    pen.shape((215, 160, 50), (0.79, 0.29), (0.95, 0.34), (0.79, 0.37))
    pen.oval(_DARK, 0.74, 0.30, 0.045, 0.045)
    pen.shape(_darker(feathers), (0.28, 0.42), (0.56, 0.42), (0.50, 0.58), (0.20, 0.62))
    for x in (0.46, 0.54):
        pen.line((130, 95, 60), 0.02, (x, 0.66), (x - 0.01, 0.86), (x + 0.05, 0.86))


def _cat(pen: _Pen) -> None:
    fur = pen.any_of((140, 130, 120), (200, 140, 80), (70, 66, 64), (215, 205, 190))
    pen.oval(_darker(fur), 0.50, 0.92, 0.62, 0.50)
    for side in (-1, 1):
        x = 0.5 + side * 0.22
        pen.shape(fur, (x - side * 0.16, 0.26), (x + side * 0.06, 0.03), (x + side * 0.10, 0.40))
        pen.shape(
            (210, 150, 140),
            (x - side * 0.07, 0.24),
            (x + side * 0.04, 0.11),
            (x + side * 0.06, 0.32),
        )
    pen.oval(fur, 0.50, 0.44, 0.64, 0.54)
    for side in (-1, 1):
        pen.oval((190, 200, 90), 0.5 + side * 0.14, 0.40, 0.12, 0.11)
        pen.oval(_DARK, 0.5 + side * 0.14, 0.40, 0.035, 0.10)
        for y in (0.52, 0.57):
            pen.line(_WHITE, 0.006, (0.5 + side * 0.08, 0.55), (0.5 + side * 0.42, y))
        pen.oval(_lighter(fur), 0.5 + side * 0.06, 0.56, 0.14, 0.12)
    pen.shape((200, 120, 115), (0.46, 0.49), (0.54, 0.49), (0.50, 0.54))


def _deer(pen: _Pen) -> None:
    fur = pen.any_of((150, 105, 65), (125, 90, 60), (165, 125, 85))
    for x in (0.24, 0.31, 0.56, 0.63):
        pen.line(_darker(fur), 0.032, (x, 0.58), (x + 0.01, 0.95))
    pen.oval(fur, 0.43, 0.54, 0.52, 0.24)
    pen.oval(_WHITE, 0.18, 0.50, 0.07, 0.11)
    pen.shape(fur, (0.56, 0.46), (0.68, 0.56), (0.80, 0.32), (0.70, 0.26))
    pen.shape(fur, (0.69, 0.24), (0.79, 0.22), (0.94, 0.33), (0.91, 0.38), (0.74, 0.36))
    pen.shape(fur, (0.72, 0.26), (0.62, 0.20), (0.70, 0.29))
    pen.oval(_DARK, 0.79, 0.275, 0.03, 0.03)
    horn = (95, 75, 55)
    for x in (0.71, 0.76):
        pen.line(horn, 0.018, (x, 0.24), (x - 0.04, 0.12), (x + 0.03, 0.02))
        pen.line(horn, 0.014, (x - 0.04, 0.12), (x - 0.11, 0.06))
        pen.line(horn, 0.014, (x - 0.01, 0.08), (x + 0.07, 0.08))


def _dog(pen: _Pen) -> None:
    fur = pen.any_of((170, 120, 75), (225, 215, 200), (90, 70, 55), (60, 58, 58), (200, 160, 110))
    ear = _darker(fur)
    pen.oval(ear, 0.50, 0.95, 0.56, 0.50)
    pen.oval(fur, 0.50, 0.40, 0.54, 0.58)
    for side in (-1, 1):
        pen.oval(ear, 0.5 + side * 0.28, 0.40, 0.18, 0.50)
        pen.oval(_DARK, 0.5 + side * 0.11, 0.33, 0.075, 0.08)
    pen.oval(_lighter(fur), 0.50, 0.56, 0.32, 0.30)
    pen.oval(_DARK, 0.50, 0.49, 0.14, 0.10)
    pen.line(_DARK, 0.012, (0.50, 0.53), (0.50, 0.62))
    if pen.rng.random() < 0.5:
        pen.oval((205, 95, 100), 0.50, 0.70, 0.11, 0.15)


def _frog(pen: _Pen) -> None:
    skin = pen.any_of((80, 120, 45), (105, 130, 60), (110, 95, 55), (60, 100, 60))
    for side in (-1, 1):
        pen.oval(_darker(skin), 0.5 + side * 0.32, 0.68, 0.30, 0.36)
        pen.line(
            _darker(skin),
            0.06,
            (0.5 + side * 0.2, 0.7),
            (0.5 + side * 0.3, 0.86),
            (0.5 + side * 0.44, 0.86),
        )
    pen.oval(skin, 0.50, 0.60, 0.62, 0.50)
    pen.oval(_lighter(skin), 0.50, 0.72, 0.44, 0.22)
    for side in (-1, 1):
        pen.oval(skin, 0.5 + side * 0.19, 0.36, 0.21, 0.20)
        pen.oval((210, 180, 70), 0.5 + side * 0.19, 0.35, 0.14, 0.13)
        pen.oval(_DARK, 0.5 + side * 0.19, 0.35, 0.08, 0.06)
    pen.line(_darker(skin), 0.015, (0.27, 0.52), (0.5, 0.58), (0.73, 0.52))
    for _ in range(6):
        x, y = pen.rng.uniform((0.3, 0.45), (0.7, 0.65))
        pen.oval(_darker(skin), float(x), float(y), 0.06, 0.05)


def _horse(pen: _Pen) -> None:
    coat = pen.any_of((115, 65, 35), (70, 48, 36), (160, 100, 55), (200, 195, 190))
    mane = pen.any_of((40, 30, 26), (75, 50, 35))
    for x in (0.22, 0.31, 0.58, 0.66):
        pen.line(coat, 0.055, (x, 0.56), (x + 0.01, 0.95))
    pen.line(mane, 0.06, (0.17, 0.46), (0.08, 0.56), (0.09, 0.78))
    pen.oval(coat, 0.43, 0.50, 0.58, 0.28)
    pen.shape(coat, (0.54, 0.40), (0.70, 0.54), (0.84, 0.24), (0.72, 0.14))
    pen.line(mane, 0.045, (0.55, 0.38), (0.64, 0.24), (0.74, 0.10))
    pen.shape(coat, (0.72, 0.12), (0.80, 0.10), (0.97, 0.30), (0.92, 0.37), (0.78, 0.28))
    pen.shape(coat, (0.73, 0.14), (0.75, 0.03), (0.79, 0.13))
    pen.oval(_DARK, 0.81, 0.19, 0.03, 0.03)


def _ship(pen: _Pen) -> None:
    hull = pen.any_of((60, 65, 75), (150, 40, 40), (35, 50, 85), (225, 225, 225))
    deck = pen.any_of(_WHITE, (210, 205, 195))
    pen.box(deck, 0.22, 0.40, 0.66, 0.56)
    pen.box(deck, 0.28, 0.27, 0.54, 0.42)
    for x in (0.31, 0.39, 0.47):
        pen.box(_GLASS, x, 0.31, x + 0.05, 0.36)
    pen.box(pen.any_of((190, 70, 40), (50, 50, 55)), 0.36, 0.10, 0.45, 0.28)
    pen.line(_DARK, 0.012, (0.74, 0.55), (0.74, 0.22))
    pen.shape(hull, (0.02, 0.53), (0.98, 0.50), (0.88, 0.72), (0.10, 0.72))
    pen.box((150, 50, 45), 0.10, 0.69, 0.88, 0.72)


def _truck(pen: _Pen) -> None:
    load = pen.any_of(_WHITE, (190, 195, 200), (170, 60, 50), (70, 110, 160))
    cab = pen.any_of((190, 40, 40), (45, 80, 150), (225, 190, 60), (235, 235, 235))
    pen.box(load, 0.03, 0.18, 0.64, 0.66)
    for x in (0.18, 0.33, 0.48):
        pen.line(_darker(load), 0.008, (x, 0.19), (x, 0.65))
    pen.shape(
        cab, (0.67, 0.32), (0.85, 0.32), (0.93, 0.50), (0.97, 0.52), (0.97, 0.70), (0.67, 0.70)
    )
    pen.shape(_GLASS, (0.73, 0.36), (0.84, 0.36), (0.90, 0.50), (0.73, 0.50))
    pen.box(_DARK, 0.03, 0.66, 0.97, 0.72)
    for x in (0.15, 0.34, 0.81):
        pen.oval(_DARK, x, 0.74, 0.17, 0.17)
        pen.oval((160, 160, 165), x, 0.74, 0.07, 0.07)


class _Thing(NamedTuple):
    """A class: what draws it, and the backgrounds that it is drawn on, from above to below."""

    draw: Callable[[_Pen], None]
    grounds: tuple[tuple[Colour, Colour], ...]


_ANIMALS = ((_GRASS, _GRASS), (_DRY_GRASS, _GRASS), (_SOIL, _DRY_GRASS))
_INDOORS = ((_WALL, _FLOOR), (_WALL, _WALL), (_GRASS, _FLOOR))
_STREETS = ((_PALE_SKY, _ROAD), (_GRASS, _ROAD), (_WALL, _ROAD))
_THINGS = {
    "airplane": _Thing(_airplane, ((_SKY, _PALE_SKY), (_PALE_SKY, _PALE_SKY), (_SKY, _SKY))),
    "automobile": _Thing(_automobile, _STREETS),
    "bird": _Thing(_bird, ((_PALE_SKY, _GRASS), (_GRASS, _GRASS), (_SKY, _PALE_SKY))),
    "cat": _Thing(_cat, _INDOORS),
    "deer": _Thing(_deer, _ANIMALS),
    "dog": _Thing(_dog, _INDOORS),
    "frog": _Thing(_frog, ((_SOIL, _SOIL), (_GRASS, _SOIL), (_FLOOR, _SOIL))),
    "horse": _Thing(_horse, ((_PALE_SKY, _GRASS), (_GRASS, _DRY_GRASS), (_PALE_SKY, _SOIL))),
    "ship": _Thing(_ship, ((_SKY, _SEA), (_PALE_SKY, _SEA), (_PALE_SKY, _SKY))),
    "truck": _Thing(_truck, _STREETS),
}
CLASS_NAMES = tuple(_THINGS)


class DrawingsSource:
    """Drawings (64, 64, 3) uint8 of the ten classes in turn; ``train`` has 800, ``test`` 200.

    Attributes:
      labels: (N,) int32.
    """

    class_names = CLASS_NAMES

    def __init__(self, split: str) -> None:
        """Choose a split.

        Raises:
          MissingSplit: it is neither ``train`` nor ``test``.
        """
        count = inspect_drawings(split).num_examples
        self.name = f"{NAME}/{split}"
        self.extents = (Extent(self.name, 0, count),)
        self.labels = np.arange(count, dtype=np.int32) % len(CLASS_NAMES)
        self._stream = _STREAMS[split]

    def __len__(self) -> int:
        """Return the number of drawings in the split."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        """Return drawing ``index`` and its label in [0, 10)."""
        check_index(index, len(self), self.name)
        label = int(self.labels[index])
        rng = np.random.default_rng((self._stream, index))
        return Record(_draw(_THINGS[CLASS_NAMES[label]], rng), label)

    def path(self, index: int) -> str:
        """Return ``drawings/SPLIT#N``."""
        check_index(index, len(self), self.name)
        return f"{self.name}#{index}"


def inspect_drawings(split: str) -> SourceFacts:
    """Count classes and examples.

    Raises:
      MissingSplit: the split is neither ``train`` nor ``test``.
    """
    if split not in _NUM_EXAMPLES:
        allowed = ", ".join(_NUM_EXAMPLES)
        raise MissingSplit(f"The drawings have no split {split!r}; allowed: {allowed}.")
    return SourceFacts(len(CLASS_NAMES), _NUM_EXAMPLES[split])


def _draw(thing: _Thing, rng: np.random.Generator) -> np.ndarray:
    """Return one drawing (64, 64, 3) uint8."""
    paper = Image.fromarray(_ground(*thing.grounds[rng.integers(len(thing.grounds))], rng))
    thing.draw(_Pen(paper, rng))
    blurred = paper.filter(ImageFilter.GaussianBlur(_PAPER / 100))
    small = np.asarray(blurred.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    # Light and grain, of the thing as well.
    light = rng.uniform(0.85, 1.1) + 0.2 * _clouds(rng)[::2, ::2, None]
    grain = rng.normal(0.0, 4.0, (SIDE, SIDE, 1))
    return np.clip(np.rint(small * light + grain), 0, 255).astype(np.uint8)


def _ground(top: Colour, bottom: Colour, rng: np.random.Generator) -> np.ndarray:
    """Return a background (128, 128, 3) uint8: one colour above, one below, and clouds in both."""
    horizon, width = rng.uniform(0.45, 0.7), rng.uniform(0.02, 0.2)
    heights = np.arange(_PAPER) / _PAPER
    share = np.clip((heights - horizon) / width + 0.5, 0, 1)[:, None, None]
    colours = (1 - share) * np.array(top) + share * np.array(bottom)
    return np.clip(colours * (1 + 0.2 * _clouds(rng)[..., None]), 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise (128, 128) from about -1 to 1."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (9, 9)).astype(np.float32))
    return np.asarray(coarse.resize((_PAPER, _PAPER), Image.Resampling.BICUBIC))


def _darker(colour: Colour) -> Colour:
    red, green, blue = colour
    return red * 7 // 10, green * 7 // 10, blue * 7 // 10


def _lighter(colour: Colour) -> Colour:
    red, green, blue = colour
    return (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2
