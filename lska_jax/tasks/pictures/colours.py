"""Colours of classes: the same on every machine, and as far apart as they can be.

The first seven are Okabe and Ito's, which people with and without full colour vision tell apart.
Each next one is farthest from all before it, as seen with all cones, without red and without green
ones, whichever shows the smallest difference; a difference that some see only counts more, since
they have fewer to choose from. A dozen can thus be told apart by nearly everybody; of many more, no
choice can be.

Sources: Okabe and Ito (2008), https://jfly.uni-koeln.de/color; OKLab,
https://bottosson.github.io/posts/oklab; simulation of colour vision, Machado, Oliveira and
Fernandes (2009), table 1, severity 1.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float64, UInt8

_LEVELS = 18  # of each channel
_LIGHTNESS = (0.45, 0.9)
_LEAST_CHROMA = 0.09
_FIRST = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0)),
    *((86, 180, 233), (204, 121, 167), (240, 228, 66)),
)
# A difference without red or green cones counts as that many times its size.
_FEWER_CONES = 1.6
_MOST_COLOURS = 256

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# What is seen without red cones, and without green ones; linear RGB.
_VISION = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
)

Colour = tuple[int, int, int]


@functools.cache
def class_colours(count: int) -> tuple[Colour, ...]:
    """Return a colour for each class, RGB in 0..255; beyond 256 classes they repeat.

    The first colours are the same for any count.

    Args:
      count: number of classes.
    """
    chosen = _choose(min(count, _MOST_COLOURS))
    return tuple(chosen[number % _MOST_COLOURS] for number in range(count))


def text_colour(ground: Colour) -> Colour:
    """Return black or white, whichever is read more easily on a ground."""
    # At this lightness black and white stand out equally (WCAG 2, contrast ratio).
    linear = _to_linear(np.array([ground]))
    luminance = float((linear @ np.array([0.2126, 0.7152, 0.0722]))[0])
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


@functools.cache
def _choose(count: int) -> tuple[Colour, ...]:
    steps = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    seen = _to_lab(candidates)
    lightness, chroma = seen[:, 0], np.linalg.norm(seen[:, 1:], axis=1)
    is_good = (
        (lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1]) & (chroma >= _LEAST_CHROMA)
    )
    candidates = np.concatenate([np.array(_FIRST, np.uint8), candidates[is_good]])
    views = [
        _to_lab(candidates, vision) * (1 if number == 0 else _FEWER_CONES)
        for number, vision in enumerate(_VISION)
    ]
    nearest = np.full(len(candidates), np.inf)
    chosen: list[int] = []
    while len(chosen) < count:
        is_given = len(chosen) < len(_FIRST)
        chosen.append(len(chosen) if is_given else int(np.argmax(nearest)))
        apart = [np.linalg.norm(view - view[chosen[-1]], axis=1) for view in views]
        # Rounded, so that the last bits of a machine's arithmetic decide nothing.
        nearest = np.minimum(nearest, np.round(np.min(apart, axis=0), 6))
    red, green, blue = candidates[chosen].T.tolist()
    return tuple(zip(red, green, blue, strict=True))


def _to_lab(
    colours: UInt8[np.ndarray, "colours 3"], vision: np.ndarray | None = None
) -> Float64[np.ndarray, "colours 3"]:
    linear = _to_linear(colours)
    if vision is not None:
        linear = np.clip(linear @ vision.T, 0, 1)
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T


def _to_linear(colours: np.ndarray) -> Float64[np.ndarray, "colours 3"]:
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
