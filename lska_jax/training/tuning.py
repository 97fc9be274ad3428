"""Which parameters a run trains, from when on, and at which share of the learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from lska_jax.models.table import family_of
from lska_jax.nn.functional import FlatArrays, flat_values
from lska_jax.training.layers import choose_paths, head_paths, layer_scales, places_of


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What differs from training every parameter alike, by path.

    Attributes:
      frozen: parameters that keep their values to the bit; no gradient is computed for them.
      frozen_statistics: of BatchNorms that normalise with their running statistics, as in
        evaluation, and keep them.
      scales: what the learning rate is multiplied by; 1 where a parameter is not named.
      starts: the step from which on a parameter is trained; 0 where it is not named.
    """

    frozen: frozenset[str] = frozenset()
    frozen_statistics: frozenset[str] = frozenset()
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    starts: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)

    def trained(self, params: FlatArrays) -> FlatArrays:
        """Return the parameters that are not frozen."""
        return {path: array for path, array in params.items() if path not in self.frozen}


def tuning_of(config: ConfigDict, model: Any, *, steps_per_epoch: int) -> Tuning:
    """Return what a run's config says of its network's parameters.

    Args:
      config: of the run.
      model: the network, real or abstract.
      steps_per_epoch: of the run.

    Raises:
      ValueError: a pattern names nothing, or nothing is left to train.
    """
    training, optimizer, head = config.training, config.optimizer, family_of(model).head
    paths = list(flat_values(nnx.state(model, nnx.Param)))
    statistics = list(flat_values(nnx.state(model, nnx.BatchStat)))
    all_places = places_of([*paths, *statistics], head=head)
    places = {path: all_places[path] for path in paths}
    frozen = choose_paths(training.freeze, places, head=head, key="training.freeze")
    if len(frozen) == len(paths):
        raise ValueError(
            f"training.freeze={tuple(training.freeze)} freezes every parameter; leave some to "
            "train, as training.freeze=('backbone',) leaves the head."
        )
    scales = {}
    if optimizer.layer_decay != 1:
        scales = layer_scales(places, decay=optimizer.layer_decay)
    if optimizer.head_learning_rate:
        scales |= {
            path: optimizer.head_learning_rate / optimizer.learning_rate
            for path in head_paths(places, head)
        }
    return Tuning(
        frozen=frozen,
        frozen_statistics=_chosen_statistics(
            training.freeze_statistics, {path: all_places[path] for path in statistics}, head
        ),
        scales={path: scale for path, scale in scales.items() if path not in frozen},
        starts=_starts(places, frozen, training.unfreeze_every_epochs * steps_per_epoch),
    )


def _chosen_statistics(
    patterns: tuple[str, ...], places: Mapping[str, Any], head: tuple[str, ...]
) -> frozenset[str]:
    if not patterns:
        return frozenset()
    if not places:
        raise ValueError(
            f"training.freeze_statistics={tuple(patterns)}: the network has no BatchNorm. Leave it "
            "()."
        )
    return choose_paths(patterns, places, head=head, key="training.freeze_statistics")


def _starts(places: Mapping[str, Any], frozen: frozenset[str], every: int) -> dict[str, int]:
    """Return when each stage starts, the last first, every so many steps (arXiv 1801.06146, 3.3).

    The head is trained from the beginning; the stem starts with the first stage.
    """
    if not every:
        return {}
    last = max(place.stage for place in places.values())
    return {
        path: every * (last - max(place.stage, 0))
        for path, place in places.items()
        if path not in frozen
    }
