"""Published facts of TPU generations, by the device kind that JAX reports."""

import dataclasses

_DOCS = "https://cloud.google.com/tpu/docs/"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation.

    Attributes:
      name: what a topology calls it, such as "v5e".
      hbm_bytes: memory of what JAX counts as one device.
      topologies: names that libtpu compiles for, smallest first.
      source: where the memory is published.
    """

    name: str
    hbm_bytes: int
    topologies: tuple[str, ...]
    source: str


_SQUARES = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

# libtpu gives v3, v4 and TPU7x a device for each TensorCore, half a chip.
CHIPS: dict[str, Chip] = {
    "TPU v3": Chip("v3", 16 * 2**30, ("1x1", "2x2", "4x4", "8x8", "16x16"), f"{_DOCS}v3"),
    "TPU v4": Chip("v4", 16 * 2**30, _CUBES, f"{_DOCS}v4"),
    "TPU v5 lite": Chip("v5e", 16 * 2**30, _SQUARES, f"{_DOCS}v5e"),
    "TPU v5": Chip("v5p", 95 * 2**30, _CUBES, f"{_DOCS}v5p"),
    "TPU v6 lite": Chip("v6e", 32 * 2**30, _SQUARES, f"{_DOCS}v6e"),
    "TPU7x": Chip("tpu7x", 96 * 2**30, _CUBES, f"{_DOCS}tpu7x"),
}


def known_topologies() -> list[str]:
    """Return the names of the topologies that were tried, such as "v5e:4x4"."""
    return [f"{chip.name}:{shape}" for chip in CHIPS.values() for shape in chip.topologies]
