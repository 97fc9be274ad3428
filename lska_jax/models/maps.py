"""The maps of a network, by name and by place."""

import functools
from collections import namedtuple
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Array

_TIMMS = {"num_chs": "channels", "reduction": "stride", "module": "name"}


class FeatureInfo(NamedTuple):
    """What one map of a network is.

    Attributes:
      name: of the map.
      channels: its last axis.
      stride: pixels of the image for each of its own, along one axis; None of tokens.
    """

    name: str
    channels: int
    stride: int | None

    def __getitem__(self, key: Any) -> Any:
        """Return a value by its place, or by timm's word: num_chs, reduction, module."""
        return getattr(self, _TIMMS[key]) if isinstance(key, str) else tuple.__getitem__(self, key)


class FeatureInfos(tuple[FeatureInfo, ...]):
    """What the maps of a network are, one after the other, with timm's accessors."""

    def channels(self) -> list[int]:
        """Return the channels of every map."""
        return [info.channels for info in self]

    def reduction(self) -> list[int | None]:
        """Return the stride of every map."""
        return [info.stride for info in self]

    def module_name(self) -> list[str]:
        """Return the name of every map."""
        return [info.name for info in self]


def named_maps(maps: Mapping[str, Array]) -> Any:
    """Return maps as a named tuple, in their order: ``maps.stage4``, ``maps[-1]``, ``_asdict()``.

    Not a dictionary, whose entries JAX brings into the order of their names.

    Args:
      maps: {name: map}.
    """
    return _type_of(tuple(maps))(*maps.values())


def stage_maps(maps: list[Array]) -> Any:
    """Return the maps of a network's stages, named stage1, stage2 and so on."""
    return named_maps({f"stage{number}": of_stage for number, of_stage in enumerate(maps, 1)})


@functools.cache
def _type_of(names: tuple[str, ...]) -> Any:
    # One type for the same names: JAX compares outputs by their types.
    return namedtuple("Maps", names)  # noqa: PYI024 - the names are known when it runs only
