"""The maps of a network, by name and by place."""

import functools
from collections import namedtuple
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array


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
