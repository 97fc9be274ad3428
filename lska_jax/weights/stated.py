"""What a model folder of another library states, in this package's words, and how it is checked."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lska_jax.models.checks import is_count, is_number
from lska_jax.models.table import Preprocessing

# Of means, standard deviations and pixels; far beyond what there is.
_LARGEST = 1e6


class Stated(NamedTuple):
    """What config.json, and files beside it, say about a model.

    Attributes:
      layout: the library that writes such folders.
      family: of the model.
      model: the named model; None where only the arrays say what it is.
      is_resized: whether the model has other sizes than its name stands for.
      fields: fields of the config that are stated.
      words: those that decide where names and shapes do not.
      num_classes: of the classifier; None where it is not stated.
      preprocessing: of the images; None where it is not stated.
      class_names: in label order, or None.
      license: of the weights, or "unknown".
      source: where the weights come from, as far as it is stated.
    """

    layout: str
    family: str
    model: str | None
    is_resized: bool
    fields: Mapping[str, Any]
    words: Mapping[str, str]
    num_classes: int | None
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...] | None
    license: str
    source: Mapping[str, str]


def square_side(name: str, value: Any) -> int:
    """Return the side of a square that is stated as a number, a pair, or height and width.

    Raises:
      ValueError: it is no square.
    """
    if isinstance(value, Mapping):
        value = [value.get("height"), value.get("width")]
    sides = list(value) if isinstance(value, Sequence) else [value, value]
    is_whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not is_whole or sides[0] != sides[1]:
        raise ValueError(f"{name}={value!r} is no square; square images are taken only.")
    if not 1 <= sides[0] <= _LARGEST:
        raise ValueError(f"{name}={value!r} is no number of pixels.")
    side: int = sides[0]
    return side


def channel_values(name: str, value: Any) -> tuple[float, ...]:
    """Return a mean or standard deviation of each channel.

    Raises:
      ValueError: it is no list of numbers.
    """
    is_list = isinstance(value, list) and bool(value)
    if not is_list or not all(is_number(entry) and abs(entry) < _LARGEST for entry in value):
        raise ValueError(f"{name}={value!r} must be a list of numbers, one a channel.")
    return tuple(float(entry) for entry in value)


def whole_numbers(name: str, value: Any) -> int | tuple[int, ...]:
    """Return a number, or one for each stage.

    Raises:
      ValueError: it is neither.
    """
    entries = value if isinstance(value, list) else [value]
    if not entries or not all(is_count(entry, low=1) for entry in entries):
        raise ValueError(f"{name}={value!r} must be a whole number, or one for each stage.")
    return tuple(entries) if isinstance(value, list) else entries[0]


def crop_fraction(crop: int, resized: int) -> float:
    """Return the crop_pct with which a side of ``resized`` pixels is cut to ``crop``."""
    fraction = crop / resized
    while int(crop / fraction) < resized:
        fraction = math.nextafter(fraction, 0)
    return fraction


def ordered_names(value: Any) -> tuple[str, ...] | None:
    """Return class names given as a list, or by number; None where there are none.

    Raises:
      ValueError: they are no texts, or numbers are left out.
    """
    if isinstance(value, Mapping):
        numbers = {str(number) for number in range(len(value))}
        if set(map(str, value)) != numbers:
            raise ValueError("its class names do not have the numbers from 0 on.")
        by_number = {str(number): name for number, name in value.items()}
        value = [by_number[str(number)] for number in range(len(value))]
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("its class names must be texts.")
    return tuple(value)
