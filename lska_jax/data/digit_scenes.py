"""Scenes of handwritten digits: dense prediction on a fresh machine, in minutes.

Scikit-learn's 8 x 8 digits are enlarged to several sizes, inked on paper that is cut out around
them like a sticker, and laid over a part of scikit-learn's two photographs. A later digit covers an
earlier one, of which at least ``_LEAST_VISIBLE`` stays in sight. As in COCO, a mask holds the
pixels that are seen, paper included, and a box is the smallest around its mask. Some scenes are
empty.

A scene is a function of (seed, split, index). Training and test scenes share neither digits, which
are split as ``digits`` splits them, nor parts of the photographs: the right quarter is the test's.
All arithmetic on pixels is in whole numbers (Pillow's resizing too), so that every machine draws
the same pixels.

Source of the photographs: https://scikit-learn.org/stable/datasets/loading_other_datasets.html
(china.jpg and flower.jpg, CC BY 2.0).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from PIL import Image

from lska_jax.data.coco_format import annotations_of
from lska_jax.data.decode import decode_rgb
from lska_jax.data.digits import DigitsSource
from lska_jax.data.scenes import ObjectImage, PixelLabels
from lska_jax.data.sources import Extent, SourceFacts, check_index

SIZE = (128, 128)
_SMALLEST_SIDE = 32

_NUM_DIGITS = 10
_NUM_SCENES = {"train": 2048, "test": 256}
# Scenes that a process keeps, of 60 KB each at the size above.
_MOST_KEPT = 8192
_STREAMS = {"train": 0, "test": 1}
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")

_EMPTY_EVERY = 16  # on average
_MOST_DIGITS = 9
# Sides of a digit with its paper, as parts of the shorter side of the scene.
_SIDES = (0.2, 0.45)
_ASPECTS = (0.8, 1.1)
_LEAST_VISIBLE = 0.7
_ATTEMPTS = 8
# A digit of 8 x 8 and a cell of paper on each side.
_TILE = 10
_MARGIN = ((0, 0), (1, 1), (1, 1))
_HALF = 128
# By level: an edge as wide as a quarter of the levels.
_OPACITIES = np.clip((np.arange(256) - _HALF) * 4 + _HALF, 0, 255).astype(np.uint16)


class _Scene(NamedTuple):
    """One drawn scene, whose arrays are not to be written to.

    Attributes:
      pixels: (H, W, 3) uint8.
      bits: (N, H, ceil(W / 8)) uint8, masks as ``numpy.packbits`` has them.
      labels: (N,) int32.
    """

    pixels: np.ndarray
    bits: np.ndarray
    labels: np.ndarray

    @property
    def masks(self) -> np.ndarray:
        """What is seen of each digit, (N, H, W) bool."""
        return np.unpackbits(self.bits, axis=-1, count=self.pixels.shape[1]).view(bool)


class _Scenes:
    """What both kinds of source share: the split, its digits, and the drawing.

    Args:
      split: ``train`` (2,048 scenes) or ``test`` (256).
      size: height and width of a scene in pixels.
      num_train: number of scenes in ``train`` instead; the first are the same.
      seed: of all scenes.

    Raises:
      ValueError: an unknown split, or a side below 32 pixels.
    """

    def __init__(
        self,
        split: str,
        *,
        size: tuple[int, int] = SIZE,
        num_train: int | None = None,
        seed: int = 0,
    ) -> None:
        self._count = _count_scenes(split, num_train)
        if min(size) < _SMALLEST_SIDE:
            raise ValueError(
                f"Scenes of {size[0]}x{size[1]} pixels leave digits no room; give at least "
                f"{_SMALLEST_SIDE}x{_SMALLEST_SIDE}."
            )
        shown = "" if size == SIZE else f":{size[0]}x{size[1]}"
        self.name = f"digit_scenes{shown}/{split}"
        self.extents = (Extent(f"digit_scenes/{split}", 0, self._count),)
        self._split, self._size, self._seed = split, size, seed

    def __len__(self) -> int:
        """Return the number of scenes in the split."""
        return self._count

    @property
    def sizes(self) -> np.ndarray:
        """Height and width of every scene, (number of scenes, 2)."""
        return np.tile(np.array(self._size), (len(self), 1))

    def path(self, index: int) -> str:
        """Return ``digit_scenes/SPLIT#N``."""
        check_index(index, len(self), self.name)
        return f"{self.name}#{index}"

    def _draw(self, index: int) -> _Scene:
        check_index(index, len(self), self.name)
        return _draw_scene(self._split, self._size, self._seed, index)


class DigitScenes(_Scenes):
    """Scenes of digits with a box and a mask each; labels are the digits."""

    class_names = tuple(str(digit) for digit in range(_NUM_DIGITS))
    most_objects = _MOST_DIGITS

    def __getitem__(self, index: int) -> ObjectImage:
        """Return scene ``index`` with its digits in the order in which they were laid."""
        scene = self._draw(index)
        masks = scene.masks
        return ObjectImage(
            image=scene.pixels,
            size=self._size,
            boxes=boxes_of(masks),
            labels=scene.labels,
            masks=masks,
            position=index,
        )

    def image_id(self, index: int) -> int:
        """Return the id of a scene: ids count from 1."""
        return index + 1

    def category_id(self, label: int) -> int:
        """Return the id of a digit: ids count from 1."""
        return label + 1

    def annotations(self) -> dict[str, Any]:
        """Return what a COCO instances file would hold."""
        return annotations_of(self)


class DigitSceneMaps(_Scenes):
    """Scenes of digits with a class a pixel: 0 is what is no digit, and digit d is d + 1."""

    class_names = ("background", *DigitScenes.class_names)
    first_id = 0

    def __getitem__(self, index: int) -> PixelLabels:
        """Return scene ``index`` and its label map."""
        scene = self._draw(index)
        label_map = np.zeros(self._size, np.uint8)
        for mask, label in zip(scene.masks, scene.labels, strict=True):
            label_map[mask] = label + 1
        return PixelLabels(scene.pixels, label_map, index)


def inspect_digit_scenes(location: str, *, split: str) -> SourceFacts:
    """Count digits and scenes without drawing one; a map of a scene has one class more.

    Raises:
      ValueError: as ``parse_scenes``, and an unknown split.
    """
    num_train = parse_scenes(location)["num_train"]
    return SourceFacts(_NUM_DIGITS, _count_scenes(split, num_train))


class SceneArguments(TypedDict):
    """What the name of a source says of its scenes."""

    size: tuple[int, int]
    num_train: int | None


def parse_scenes(location: str) -> SceneArguments:
    """Read ``HEIGHTxWIDTH[:SCENES]``, the size and the number to train on; "" is 128x128.

    Raises:
      ValueError: it is written otherwise.
    """
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})(?::0*([1-9]\d{0,8}))?", location, re.ASCII)
    if location and not found:
        raise ValueError(
            f"digit_scenes:{location} is not understood; write digit_scenes:HEIGHTxWIDTH, as in "
            "digit_scenes:96x128, or with the number of scenes to train on, "
            "digit_scenes:96x128:5000."
        )
    height, width, num_train = found.groups() if found else (*SIZE, None)
    return {
        "size": (int(height), int(width)),
        "num_train": int(num_train) if num_train else None,
    }


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Return the smallest boxes (N, 4) float32 around masks (N, H, W); 0 0 0 0 around nothing."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


# Drawing takes as long as a step of a small network: a process draws what it reads again once.
@functools.lru_cache(maxsize=_MOST_KEPT)
def _draw_scene(split: str, size: tuple[int, int], seed: int, index: int) -> _Scene:
    rng = np.random.default_rng((seed, _STREAMS[split], index))
    pixels = _draw_ground(split, size, rng)
    num_digits = 0 if rng.integers(_EMPTY_EVERY) == 0 else int(rng.integers(1, _MOST_DIGITS + 1))
    labels: list[int] = []
    # Of each digit that was laid: its pixels, and those of them that are still seen.
    areas, seen = np.zeros((2, 0), np.int64)
    owners = np.zeros(size, np.uint8)  # number of the digit that a pixel shows, from 1; 0: none
    for _ in range(num_digits):
        label = int(rng.integers(_NUM_DIGITS))
        tiles = _tiles(split)[label]
        ink, paper = tiles[rng.integers(len(tiles))]
        colours = _draw_colours(rng)
        for _ in range(_ATTEMPTS):
            sides, (top, left) = _draw_place(size, rng)
            levels = _resize(paper, sides)
            window = (slice(top, top + sides[1]), slice(left, left + sides[0]))
            cover = levels >= _HALF
            covered = np.bincount(owners[window][cover], minlength=len(labels) + 1)[1:]
            remaining = seen - covered
            if np.all(remaining >= _LEAST_VISIBLE * areas):
                labels.append(label)
                owners[window][cover] = len(labels)
                area = np.count_nonzero(cover)
                areas, seen = np.append(areas, area), np.append(remaining, area)
                layers = (levels, _resize(ink, sides))
                for part, colour in zip(layers, colours, strict=True):
                    pixels[window] = _lay(pixels[window], part, colour)
                break
    visible = owners == np.arange(1, len(labels) + 1, dtype=np.uint8)[:, None, None]
    scene = _Scene(pixels, np.packbits(visible, axis=-1), np.array(labels, np.int32))
    for array in scene:
        array.setflags(write=False)
    return scene


def _draw_ground(split: str, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a part of a photograph at the scene's size, (H, W, 3) uint8."""
    parts = photographs(split)
    photograph = parts[rng.integers(len(parts))]
    # The largest part of the scene's proportions that fits.
    most = min(photograph.height / size[0], photograph.width / size[1])
    zoom = most * (0.25 + 0.5 * rng.random())
    height, width = (max(1, int(side * zoom)) for side in size)
    top = int(rng.integers(photograph.height - height + 1))
    left = int(rng.integers(photograph.width - width + 1))
    part = photograph.crop((left, top, left + width, top + height))
    return np.array(part.resize(size[::-1], Image.Resampling.BILINEAR))


def _draw_place(
    size: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (width, height) of a digit with its paper and (top, left), inside the scene."""
    low, high = _SIDES
    height = int(min(size) * (low + (high - low) * rng.random()))
    width = int(height * (_ASPECTS[0] + (_ASPECTS[1] - _ASPECTS[0]) * rng.random()))
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    return (width, height), (int(top), int(left))


def _draw_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of paper and ink: any light one, and any dark one."""
    paper, ink = rng.integers(150, 256, 3), rng.integers(0, 90, 3)
    return paper.astype(np.uint16), ink.astype(np.uint16)


def _resize(tile: Image.Image, sides: tuple[int, int]) -> np.ndarray:
    """Return a tile in greys, (H, W) uint8, at a width and height."""
    return np.asarray(tile.resize(sides, Image.Resampling.BICUBIC))


def _lay(pixels: np.ndarray, levels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lay a colour over pixels where levels (H, W) uint8 are high, with an edge of a pixel."""
    height, width = levels.shape
    # In rows of all channels: NumPy is slow over a last axis of three.
    opacity = np.repeat(_OPACITIES[levels], 3, axis=1)
    under, over = pixels.reshape(height, -1), np.tile(colour, width)
    # At most 255 * 255 + 127, which 16 bits hold.
    mixed = (under * (255 - opacity) + over * opacity + 127) // 255
    return mixed.astype(np.uint8).reshape(pixels.shape)


@functools.cache
def _tiles(split: str) -> list[list[tuple[Image.Image, Image.Image]]]:
    """Return, for each digit, the ink and the paper of its examples, (10, 10) greys."""
    digits = DigitsSource(split)
    images, labels = zip(*(digits[index] for index in range(len(digits))), strict=True)
    ink = np.pad(np.stack([np.asarray(image)[:, :, 0] for image in images]), _MARGIN)
    near = np.pad(ink, _MARGIN)
    windows = [near[:, y : y + _TILE, x : x + _TILE] for y in range(3) for x in range(3)]
    paper = np.max(windows, axis=0)
    tiles: list[list[tuple[Image.Image, Image.Image]]] = [[] for _ in range(_NUM_DIGITS)]
    for label, *layers in zip(labels, ink, paper, strict=True):
        tiles[label].append((Image.fromarray(layers[0]), Image.fromarray(layers[1])))
    return tiles


@functools.cache
def photographs(split: str) -> list[Image.Image]:
    """Return the left three quarters of the photographs for training, the rest for the test."""
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    photographs = [
        Image.fromarray(decode_rgb((folder / name).read_bytes())) for name in _PHOTOGRAPHS
    ]
    parts = []
    for photograph in photographs:
        width, height = photograph.size
        edge = 3 * width // 4
        box = (0, 0, edge, height) if split == "train" else (edge, 0, width, height)
        parts.append(photograph.crop(box))
    return parts


def _count_scenes(split: str, num_train: int | None) -> int:
    if split not in _NUM_SCENES:
        allowed = ", ".join(_NUM_SCENES)
        raise ValueError(f"Digit scenes have no split {split!r}; allowed: {allowed}.")
    return num_train if num_train and split == "train" else _NUM_SCENES[split]
