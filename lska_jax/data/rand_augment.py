"""RandAugment on Pillow images, with the operations and strengths of timm 0.4.12.

For each image, `num_operations` operations are drawn uniformly and with replacement; each is
applied with `probability`, at a strength drawn from a normal distribution, clipped to [0, 10].

The method is Cubuk et al., "RandAugment", https://arxiv.org/abs/1909.13719. The training recipe of
the reference uses the string "rand-m9-mstd0.5-inc1" of timm 0.4.12, whose pixels every operation
here reproduces exactly. Two deviations:

* ``inc0`` switches the increasing variants off. timm 0.4.12 reads any ``inc`` as on.
* Posterising to 0 bits gives a black image, as Pillow did when the reference was trained; recent
  Pillow versions raise an error instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 10.0
INTERPOLATIONS: dict[str, tuple[Image.Resampling, ...]] = {
    "bilinear": (Image.Resampling.BILINEAR,),
    "bicubic": (Image.Resampling.BICUBIC,),
    "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}

_SOLARIZE_ADD_THRESHOLD = 128


class Settings(NamedTuple):
    """What a geometric operation needs besides its argument."""

    resample: Image.Resampling
    fill: tuple[int, ...]


class Operation(NamedTuple):
    """One row of the table of operations.

    Attributes:
      argument: maps the strength in [0, 1] to what `apply` takes.
      is_signed: whether the argument is negated with probability 0.5.
      apply: (image, argument, settings) -> image of the same size and mode.
    """

    argument: Callable[[float], float]
    is_signed: bool
    apply: Callable[[Image.Image, float, Settings], Image.Image]


class Step(NamedTuple):
    """One operation as drawn for one image: its name in `OPERATIONS`, argument and resampling."""

    name: str
    argument: float
    resample: Image.Resampling


def _map_values(image: Image.Image, table: list[int]) -> Image.Image:
    return image.point(table * len(image.getbands()))


def _posterize(image: Image.Image, bits: float, _: Settings) -> Image.Image:
    kept_bits = 0xFF & ~(2 ** (8 - int(bits)) - 1)
    return _map_values(image, [value & kept_bits for value in range(256)])


def _solarize(image: Image.Image, threshold: float, _: Settings) -> Image.Image:
    return _map_values(image, [v if v < threshold else 255 - v for v in range(256)])


def _solarize_add(image: Image.Image, added: float, _: Settings) -> Image.Image:
    threshold = _SOLARIZE_ADD_THRESHOLD
    return _map_values(
        image, [min(255, v + int(added)) if v < threshold else v for v in range(256)]
    )


def _rotate(image: Image.Image, degrees: float, settings: Settings) -> Image.Image:
    fill = _fill_for(image, settings)
    return image.rotate(degrees, resample=settings.resample, fillcolor=fill)


def _warp(image: Image.Image, settings: Settings, *matrix: float) -> Image.Image:
    """Apply an affine map given as the rows (a, b, c), (d, e, f) from output to input position."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=settings.resample,
        fillcolor=_fill_for(image, settings),
    )


def _shear_x(image: Image.Image, slope: float, settings: Settings) -> Image.Image:
    return _warp(image, settings, 1.0, slope, 0.0, 0.0, 1.0, 0.0)


def _shear_y(image: Image.Image, slope: float, settings: Settings) -> Image.Image:
    return _warp(image, settings, 1.0, 0.0, 0.0, slope, 1.0, 0.0)


def _translate_x(image: Image.Image, fraction: float, settings: Settings) -> Image.Image:
    return _warp(image, settings, 1.0, 0.0, fraction * image.width, 0.0, 1.0, 0.0)


def _translate_y(image: Image.Image, fraction: float, settings: Settings) -> Image.Image:
    return _warp(image, settings, 1.0, 0.0, 0.0, 0.0, 1.0, fraction * image.height)


def _fill_for(image: Image.Image, settings: Settings) -> int | tuple[int, ...]:
    if image.mode == "L":
        return settings.fill[0]
    return settings.fill if len(settings.fill) == 3 else settings.fill[:1] * 3


def _without_argument(function: Callable[[Image.Image], Image.Image]) -> Operation:
    """Build the row of an operation that has no strength."""
    return Operation(lambda _: 0.0, False, lambda image, _argument, _settings: function(image))


def _enhancement(enhancer: Callable[[Image.Image], Any], *, is_increasing: bool) -> Operation:
    """Build the row of a blend between an image and its degenerate (grey, black, blurred) form.

    The blend factor is 1 for "no change": the increasing form moves away from 1 in both directions,
    the other one runs from 0.1 to 1.9.
    """
    if is_increasing:
        return Operation(
            lambda strength: strength * 0.9,
            True,
            lambda image, change, _: enhancer(image).enhance(1.0 + change),
        )
    return Operation(
        lambda strength: strength * 1.8 + 0.1,
        False,
        lambda image, factor, _: enhancer(image).enhance(factor),
    )


# name -> argument from the strength in [0, 1], sign drawn or not, pixels
OPERATIONS: dict[str, Operation] = {
    "AutoContrast": _without_argument(ImageOps.autocontrast),
    "Equalize": _without_argument(ImageOps.equalize),
    "Invert": _without_argument(ImageOps.invert),
    "Rotate": Operation(lambda s: s * 30.0, True, _rotate),
    "Posterize": Operation(lambda s: float(int(s * 4)), False, _posterize),
    "PosterizeIncreasing": Operation(lambda s: 4.0 - int(s * 4), False, _posterize),
    "Solarize": Operation(lambda s: float(int(s * 256)), False, _solarize),
    "SolarizeIncreasing": Operation(lambda s: 256.0 - int(s * 256), False, _solarize),
    "SolarizeAdd": Operation(lambda s: float(int(s * 110)), False, _solarize_add),
    "Color": _enhancement(ImageEnhance.Color, is_increasing=False),
    "ColorIncreasing": _enhancement(ImageEnhance.Color, is_increasing=True),
    "Contrast": _enhancement(ImageEnhance.Contrast, is_increasing=False),
    "ContrastIncreasing": _enhancement(ImageEnhance.Contrast, is_increasing=True),
    "Brightness": _enhancement(ImageEnhance.Brightness, is_increasing=False),
    "BrightnessIncreasing": _enhancement(ImageEnhance.Brightness, is_increasing=True),
    "Sharpness": _enhancement(ImageEnhance.Sharpness, is_increasing=False),
    "SharpnessIncreasing": _enhancement(ImageEnhance.Sharpness, is_increasing=True),
    "ShearX": Operation(lambda s: s * 0.3, True, _shear_x),
    "ShearY": Operation(lambda s: s * 0.3, True, _shear_y),
    "TranslateXRel": Operation(lambda s: s * 0.45, True, _translate_x),
    "TranslateYRel": Operation(lambda s: s * 0.45, True, _translate_y),
}

_WITH_INCREASING_VARIANT = tuple(name for name in OPERATIONS if f"{name}Increasing" in OPERATIONS)
INCREASING_OPERATIONS = tuple(name for name in OPERATIONS if name not in _WITH_INCREASING_VARIANT)
PLAIN_OPERATIONS = tuple(name for name in OPERATIONS if not name.endswith("Increasing"))


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """A random sequence of image operations; picklable, without state.

    Attributes:
      num_operations: operations drawn per image.
      magnitude: mean strength on the scale 0 to 10.
      magnitude_std: standard deviation of the strength, before it is clipped to [0, 10].
      probability: of applying each drawn operation.
      is_increasing: use the variants whose effect always grows with the strength.
      interpolation: "bilinear", "bicubic" or "random" (drawn anew for each operation).
      fill: grey levels for what geometric operations uncover, one value or one per channel.
    """

    num_operations: int = 2
    magnitude: float = MAX_MAGNITUDE
    magnitude_std: float = 0.0
    probability: float = 0.5
    is_increasing: bool = False
    interpolation: str = "random"
    fill: tuple[int, ...] = (128,)

    @property
    def operation_names(self) -> tuple[str, ...]:
        """Names of the 15 operations to draw from."""
        return INCREASING_OPERATIONS if self.is_increasing else PLAIN_OPERATIONS

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a changed copy of an image in mode L or RGB; the same size and mode."""
        for step in self.draw(rng):
            settings = Settings(resample=step.resample, fill=self.fill)
            image = OPERATIONS[step.name].apply(image, step.argument, settings)
        return image

    def draw(self, rng: np.random.Generator) -> list[Step]:
        """Draw the operations for one image; those that the coin leaves out are not listed."""
        names = self.operation_names
        resamplings = INTERPOLATIONS[self.interpolation]
        steps = []
        for index in rng.integers(len(names), size=self.num_operations):
            if rng.random() >= self.probability:
                continue
            operation = OPERATIONS[names[index]]
            argument = operation.argument(self._draw_magnitude(rng) / MAX_MAGNITUDE)
            if operation.is_signed and rng.random() < 0.5:
                argument = -argument
            resample = resamplings[rng.integers(len(resamplings))]
            steps.append(Step(names[index], argument, resample))
        return steps

    def _draw_magnitude(self, rng: np.random.Generator) -> float:
        magnitude = self.magnitude
        if self.magnitude_std > 0:
            magnitude = rng.normal(magnitude, self.magnitude_std)
        return min(MAX_MAGNITUDE, max(0.0, magnitude))


# key -> (field of RandAugment, conversion, lower and upper bound)
_SPEC_KEYS: dict[str, tuple[str, Callable[[str], float], float, float]] = {
    "m": ("magnitude", float, 0, MAX_MAGNITUDE),
    "n": ("num_operations", int, 1, 100),
    "mstd": ("magnitude_std", float, 0, MAX_MAGNITUDE),
    "inc": ("is_increasing", int, 0, 1),
    "p": ("probability", float, 0, 1),
}


def parse_rand_augment(
    spec: str, *, fill: tuple[int, ...] = (128,), interpolation: str = "random"
) -> RandAugment:
    """Build RandAugment from timm's notation.

    Args:
      spec: "rand" and any of ``-m`` magnitude (default 10), ``-n`` operations per image (2),
        ``-mstd`` deviation of the magnitude (0), ``-inc`` 0 or 1 for the increasing variants
        (0), ``-p`` probability of each operation (0.5), as in "rand-m9-mstd0.5-inc1".
      fill: grey levels for what geometric operations uncover, one value or one per channel.
      interpolation: "bilinear", "bicubic" or "random".

    Raises:
      ValueError: the string does not follow this notation, or a value is out of its range.
    """
    check_interpolation(interpolation)
    name, *sections = spec.split("-")
    if name != "rand":
        raise _bad_spec(spec, f"it starts with {name!r}")
    values: dict[str, float] = {}
    for section in sections:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section)
        if match is None or match[1] not in _SPEC_KEYS:
            raise _bad_spec(spec, f"{section!r} is not a key with a number")
        field, convert, low, high = _SPEC_KEYS[match[1]]
        if field in values:
            raise _bad_spec(spec, f"{match[1]!r} is given twice")
        try:
            values[field] = convert(match[2])
        except ValueError as error:
            raise _bad_spec(spec, f"{section!r} needs a whole number") from error
        if not low <= values[field] <= high:
            raise _bad_spec(spec, f"{section!r} is outside {low:g} to {high:g}")
    return RandAugment(
        num_operations=int(values.get("num_operations", 2)),
        magnitude=values.get("magnitude", MAX_MAGNITUDE),
        magnitude_std=values.get("magnitude_std", 0.0),
        probability=values.get("probability", 0.5),
        is_increasing=bool(values.get("is_increasing", False)),
        interpolation=interpolation,
        fill=fill,
    )


def check_interpolation(interpolation: str) -> None:
    """Raise ValueError unless the name is one of `INTERPOLATIONS`."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation is {interpolation!r}; allowed are {', '.join(INTERPOLATIONS)}."
        )


def _bad_spec(spec: str, problem: str) -> ValueError:
    return ValueError(
        f"RandAugment is {spec!r}, but {problem}. Write 'rand' followed by any of -mM (magnitude "
        "0 to 10), -nN (operations), -mstdS (deviation of the magnitude), -inc0 or -inc1 "
        "(increasing variants), -pP (probability), for example 'rand-m9-mstd0.5-inc1'."
    )
