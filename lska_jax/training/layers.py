"""The layers of a network by depth, read off its parameters' paths: what fine-tuning speaks of.

Layer-wise decay of the learning rate is BEiT's (arXiv 2106.08254, ``LayerDecayValueAssigner`` in
its code, which timm's ``param_groups_layer_decay`` takes over): layer 0 is the stem with its
positions and tokens, every block is one more layer, and whatever stands behind the last block is
the last layer, with the head. The rate of layer i of n + 1 is multiplied by decay ** (n - i).
Layers between stages belong to the first block behind them, as in timm; a norm at the end of a
stage belongs to the stage's last block.

Of a dense network that is its backbone; everything else is its head, in the last layer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lska_jax.models.heads import BACKBONE as DENSE_BACKBONE

HEAD, BACKBONE, STEM = "head", "backbone", "stem"
_DENSE = f"{DENSE_BACKBONE}/"
_BLOCK = re.compile(r"(?:stages/(?P<stage>\d+)/)?blocks/(?P<block>\d+)/")
_BETWEEN = re.compile(r"transitions/(?P<before>\d+)/")
_IN_STAGE = re.compile(r"stages/(?P<stage>\d+)/(?P<name>\w+)")
_BEHIND = ("norm", "hidden")
_SHOWN = 12


class Place(NamedTuple):
    """Where a parameter is.

    Attributes:
      stage: of the network, from 0; -1 for the stem, and as many as there are stages for the head.
      layer: see the module.
    """

    stage: int
    layer: int


def places_of(paths: Iterable[str], *, head: Sequence[str]) -> dict[str, Place]:
    """Return the place of every parameter or statistic.

    Networks without stages, as ViT, count every block as a stage, and a stage without blocks is one
    block. In a dense network all but the backbone is the head.

    Args:
      paths: of all of them.
      head: paths of the classifier, as the family names them.
    """
    whole = list(paths)
    if is_dense(whole):
        inner = {path: path.removeprefix(_DENSE) for path in whole if path.startswith(_DENSE)}
        places = places_of(inner.values(), head=())
        behind = Place(
            max(place.stage for place in places.values()) + 1,
            max(place.layer for place in places.values()) + 1,
        )
        return {path: places[inner[path]] if path in inner else behind for path in whole}
    paths = whole
    with_blocks = {(int(m["stage"] or 0), int(m["block"])) for m in map(_BLOCK.match, paths) if m}
    all_stages = {int(m["stage"]) for m in map(_IN_STAGE.match, paths) if m}
    # A stage that is not divided into blocks is one.
    whole_stages = all_stages - {stage for stage, _ in with_blocks}
    blocks = sorted(with_blocks | {(stage, 0) for stage in whole_stages})
    number = {block: n for n, block in enumerate(blocks, 1)}
    has_stages = any(path.startswith("stages/") for path in paths)
    last_stage = max((s if has_stages else b for s, b in blocks), default=-1)
    heads = {path.split("/")[0] for path in head}

    def place(path: str) -> Place:
        first = path.split("/")[0]
        if match := _BLOCK.match(path):
            block = (int(match["stage"] or 0), int(match["block"]))
            return Place(block[0] if has_stages else block[1], number[block])
        if match := _BETWEEN.match(path):
            stage = int(match["before"]) + 1
            return Place(stage, number.get((stage, 0), len(blocks)))
        if match := _IN_STAGE.match(path):
            stage = int(match["stage"])
            if match["name"].startswith("norm") and stage not in whole_stages:
                return Place(stage, max(n for (s, _), n in number.items() if s == stage))
            is_stem = stage == 0 and stage not in whole_stages
            return Place(stage, 0 if is_stem else number[stage, 0])
        if first in heads or first.startswith(_BEHIND):
            return Place(last_stage + 1, len(blocks) + 1)
        return Place(-1, 0)

    return {path: place(path) for path in paths}


def is_dense(paths: Iterable[str]) -> bool:
    """Tell whether parameters are those of a dense network."""
    return any(path.startswith(_DENSE) for path in paths)


def head_paths(places: Mapping[str, Place], head: Sequence[str]) -> frozenset[str]:
    """Return the paths of a network's head: its classifier, or all but the backbone of a dense one.

    Args:
      places: of all parameters or statistics.
      head: paths of the classifier.
    """
    if is_dense(places):
        return frozenset(path for path in places if not path.startswith(_DENSE))
    return frozenset(places) & frozenset(head)


def layer_scales(places: Mapping[str, Place], *, decay: float) -> dict[str, float]:
    """Return what the learning rate of every parameter is multiplied by: decay ** (n - layer)."""
    last = max(place.layer for place in places.values())
    return {path: decay ** (last - place.layer) for path, place in places.items()}


def choose_paths(
    patterns: Sequence[str], places: Mapping[str, Place], *, head: Sequence[str], key: str
) -> frozenset[str]:
    """Return the parameters or statistics that some patterns name.

    Args:
      patterns: "head", "backbone" (all but the head), "stem", "stage1" and so on, or a path, with
        "*" for anything; what lies below a path is meant too.
      places: of all of them.
      head: paths of the classifier.
      key: of the config, for the message.

    Raises:
      ValueError: a pattern that names nothing.
    """
    chosen: set[str] = set()
    stages, of_head = max(place.stage for place in places.values()), head_paths(places, head)
    for pattern in patterns:
        found = {path for path, place in places.items() if _is_named(path, place, pattern, of_head)}
        if not found:
            names = dict.fromkeys("/".join(path.split("/")[:2]) for path in places)
            shown = ", ".join(list(names)[:_SHOWN])
            raise ValueError(
                f"{key}: {pattern!r} names nothing of the network. Allowed: {HEAD}, {BACKBONE}, "
                f"{STEM}, stage1 to stage{stages}, or paths such as {shown}."
            )
        chosen |= found
    return frozenset(chosen)


def _is_named(path: str, place: Place, pattern: str, head: frozenset[str]) -> bool:
    if pattern == HEAD:
        return path in head
    if pattern == BACKBONE:
        return path not in head
    if pattern == STEM:
        return place.layer == 0
    if match := re.fullmatch(r"stage(\d+)", pattern):
        return place.stage == int(match[1]) - 1 and place.layer > 0
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")
