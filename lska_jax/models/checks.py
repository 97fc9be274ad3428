"""What families check, without jax: their configs' fields, as lists of complaints, and images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lska_jax.models.table import DTYPES, family_of
from lska_jax.ops.formulations import canonical
from lska_jax.ops.image_shapes import check_channels

_IMAGE_DTYPES = frozenset({"float16", "bfloat16", "float32", "float64"})


def check_counts(fields: Mapping[str, Any], names: Sequence[str], *, low: int) -> list[str]:
    """Check that fields are whole numbers from ``low`` on."""
    return [problem for name in names for problem in _check_count(name, fields[name], low=low)]


def check_stages(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Check that fields have one whole number from 1 on for each stage, all as many."""
    problems = []
    for name in names:
        values = fields[name]
        if not isinstance(values, tuple) or not values:
            problems.append(f"{name}={values!r} must have one whole number for each stage.")
            continue
        for stage, value in enumerate(values):
            problems += _check_count(f"{name}[{stage}]", value, low=1)
    if not problems and len({len(fields[name]) for name in names}) > 1:
        shown = ", ".join(f"{name}={fields[name]}" for name in names)
        problems.append(f"{shown} need one entry for each stage.")
    return problems


def _check_count(label: str, value: object, *, low: int) -> list[str]:
    if not isinstance(value, int) or isinstance(value, bool):
        return [f"{label}={value!r} must be a whole number."]
    return [] if value >= low else [f"{label}={value} must be at least {low}."]


def check_rates(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Check that fields are rates, in [0, 1)."""
    return [p for name in names for p in check_range(name, fields[name], low=0, below=1)]


def check_range(
    name: str,
    value: Any,
    *,
    above: int | float = -math.inf,
    low: int | float = -math.inf,
    high: int | float = math.inf,
    below: int | float = math.inf,
) -> list[str]:
    """Check that a number is finite, above one bound or at least it, below one or at most it."""
    if is_number(value) and low <= value <= high and above < value < below:
        return []
    bounds = [f"above {above:.12g}"] if above > -math.inf else []
    bounds += [f"at least {low:.12g}"] if low > -math.inf else []
    bounds += [f"at most {high:.12g}"] if high < math.inf else []
    bounds += [f"below {below:.12g}"] if below < math.inf else []
    return [f"{name}={value!r} must be {' and '.join(bounds) or 'finite'}."]


def check_choice(fields: Mapping[str, Any], name: str, allowed: Sequence[str]) -> list[str]:
    """Check that a field is one of some words."""
    if fields[name] in allowed:
        return []
    return [f"{name}={fields[name]!r} is unknown; allowed: {', '.join(allowed)}."]


def check_computation(fields: Mapping[str, Any]) -> list[str]:
    """Check what every family has, and of ``COMPUTE_FIELDS`` those that it has."""
    rates = [name for name in ("drop_rate", "drop_path_rate") if name in fields]
    problems = [
        *check_counts(fields, ("num_classes",), low=0),
        *check_counts(fields, ("in_channels",), low=1),
        *check_choice(fields, "dtype", DTYPES),
        *check_rates(fields, rates),
    ]
    if not isinstance(fields.get("remat", False), bool):
        problems.append(f"remat={fields['remat']!r} must be True or False.")
    try:
        canonical(fields.get("implementation", "auto"))
    except ValueError as error:
        problems.append(f"implementation: {error}")
    return problems


def is_count(value: object, *, low: int) -> bool:
    """Tell whether a value is a whole number from ``low`` on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # Not math.isfinite, which takes no whole number beyond float's.
    return -math.inf < value < math.inf


def least_side(config: Any) -> int:
    """Return the least height and width of a network's images; 1 if its family names none."""
    side: int = getattr(config, "least_side", 1)
    return side


def check_images(images: Any, config: Any) -> None:
    """Check the images that a network is given.

    Args:
      images: anything with a shape.
      config: of the network, of any family.

    Raises:
      ValueError: not (B, H, W, in_channels), or sides that the family cannot take.
      TypeError: no array, or pixels that nobody has normalised.
    """
    check_channels(images, config.in_channels)
    if (dtype := str(images.dtype)) not in _IMAGE_DTYPES:
        raise TypeError(
            f"images are {dtype}; networks take normalised floats: (images / 255 - mean) / std, "
            "with the mean and std that belong to the weights."
        )
    shape = images.shape
    multiple = family_of(config).image_multiple(vars(config))
    if shape[1] % multiple or shape[2] % multiple:
        raise ValueError(
            f"images must have a height and width that are multiples of {multiple}, got "
            f"{shape[1]} x {shape[2]}."
        )
    least = max(least_side(config), multiple)
    if min(shape[1:3]) < least:
        raise ValueError(
            f"images must have at least {least} x {least} pixels, got {shape[1]} x {shape[2]}: a "
            "map would be left without a pixel. Resize them, or choose a smaller patch or stride "
            "of the stem."
        )
