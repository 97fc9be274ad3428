"""Which formulation ``depthwise_conv`` takes where: names, and the table behind "auto".

The table, ``formulations.json``, is made by ``python -m benchmarks.tune``. Each of its parts says
where its rows come from: measured on which machine, or compiled only. CPUs have two parts, one for
each width of their vectors; GPU and TPU have one each.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lska_jax.ops.processor import has_wide_vectors

NAMES = ("xla", "shift", "toeplitz", "pallas")
TABLE_PATH = Path(__file__).with_name("formulations.json")
# Of the table: what was measured on a processor with AVX-512, and on one without.
WIDE_CPU, NARROW_CPU = "cpu avx512", "cpu avx2"
# How far apart, in doublings, two sites are for having maps of different dtypes.
_OTHER_DTYPE = 2.0


class Formulations(NamedTuple):
    """The formulations of one convolution, each one of ``NAMES``.

    Attributes:
      forward: of the convolution.
      input_gradient: of the gradient of its images, the same operation with the flipped kernel.
      weight_gradient: of the gradient of its kernel.
    """

    forward: str
    input_gradient: str
    weight_gradient: str


class Site(NamedTuple):
    """What the choice depends on.

    Attributes:
      kernel_size: (height, width) in taps.
      dilation: distance between taps, in pixels.
      map_size: (height, width) in pixels.
      channels: C.
      dtype: of the map.
    """

    kernel_size: tuple[int, int]
    dilation: int
    map_size: tuple[int, int]
    channels: int
    dtype: str = "float32"


def parse(implementation: object) -> Formulations:
    """Return the formulations that a name, or one name for each of the three parts, stands for.

    Raises:
      ValueError: an unknown name, or neither one nor three of them.
    """
    names = (implementation,) * 3 if isinstance(implementation, str) else implementation
    if (
        not isinstance(names, Sequence)
        or len(names) != 3
        or any(name not in NAMES for name in names)
    ):
        raise ValueError(
            f"Unknown implementation {implementation!r}; allowed: auto, {', '.join(NAMES)}, or "
            "three of these names, for forward, input gradient and weight gradient."
        )
    return Formulations(*names)


def canonical(implementation: object) -> str | Formulations:
    """Return "auto", one name where all three parts have it, or three.

    Raises:
      ValueError: as ``parse``.
    """
    if implementation == "auto":
        return "auto"
    formulations = parse(implementation)
    return formulations.forward if len(set(formulations)) == 1 else formulations


def choose(site: Site, *, platform: str) -> Formulations:
    """Return the table's formulations for the site nearest to this one.

    Args:
      site: the convolution.
      platform: "cpu", of which the processor at hand decides the part of the table, "gpu" or
        "tpu"; or a part's own name. Any other takes the reference.
    """
    rows = _table().get(part_of(platform), ())
    alike = [row for row in rows if _kind(row[0]) == _kind(site)]
    if not alike:
        return parse("xla")
    return min(alike, key=lambda row: _distance(row[0], site))[1]


@functools.cache
def part_of(platform: str) -> str:
    """Return the part of the table that holds a platform's rows.

    A CPU without AVX-512, whatever its kind, takes the rows of the one that was measured.

    Args:
      platform: as ``platform.target_platform`` names it.
    """
    if platform != "cpu":
        return platform
    return WIDE_CPU if has_wide_vectors() else NARROW_CPU


@functools.cache
def _table() -> Mapping[str, Sequence[tuple[Site, Formulations]]]:
    return {
        name: [_row(row) for row in part["rows"]]
        for name, part in json.loads(TABLE_PATH.read_text()).items()
    }


def _row(row: Mapping[str, Any]) -> tuple[Site, Formulations]:
    return site_of(row), parse(row["formulations"])


def site_of(row: Mapping[str, Any]) -> Site:
    """Return the site of one of the table's rows."""
    kernel_size, map_size = tuple(row["kernel_size"]), tuple(row["map_size"])
    return Site(kernel_size, row["dilation"], map_size, row["channels"], row["dtype"])


@functools.cache
def _kind(site: Site) -> str:
    height, width = site.kernel_size
    if height == 1 or width == 1:
        return "horizontal" if height == 1 else "vertical"
    # The FFN's: where libraries have a convolution for one depth-wise kernel, it is this.
    return "3x3" if (height, width, site.dilation) == (3, 3, 1) else "square"


@functools.cache
def _distance(one: Site, other: Site) -> float:
    """Return how many doublings lie between two sites, summed over what describes them."""
    pairs = [
        (math.prod(one.kernel_size), math.prod(other.kernel_size)),
        (one.dilation, other.dilation),
        (_axis_length(one), _axis_length(other)),
        (one.channels, other.channels),
    ]
    doublings = sum(abs(math.log2(a / b)) for a, b in pairs)
    return doublings + _OTHER_DTYPE * (one.dtype != other.dtype)


def _axis_length(site: Site) -> int:
    height, width = site.map_size
    return {"horizontal": width, "vertical": height}.get(_kind(site), max(height, width))
