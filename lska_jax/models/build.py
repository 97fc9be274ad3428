"""Networks from configs of any family: built, or their shapes alone.

Flax, a fifth of a second to import, is not: a prediction whose program is kept needs no network.
"""

import functools
from collections.abc import Mapping
from typing import Any

from lska_jax.models.table import family_of, fields_of, load


def build(config: Any, *, rngs: Any) -> Any:
    """Return a config's network in training mode, freshly initialised.

    Args:
      config: of any family.
      rngs: an ``nnx.Rngs``, source of the initial parameters and, with dropout or drop path, of
        their keys.
    """
    return load(family_of(config).network)(config, rngs=rngs)


def config_of(section: Mapping[str, Any]) -> Any:
    """Return the config that a run's ``config.model`` stands for.

    Raises:
      ValueError: an unknown name or field, or values that make no network.
    """
    family, fields = fields_of(section)
    return family.config(**fields)


def abstract_model(config: Any) -> Any:
    """Return a config's network with shapes in place of arrays; no value is computed."""
    from flax import nnx

    graph, state = _abstract(config)
    return nnx.merge(graph, state, copy=True)


def array_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Return {path: shape} of a network's parameters and statistics, sorted by path."""
    return dict(_shapes(config))


@functools.lru_cache(maxsize=64)
def _abstract(config: Any) -> tuple[Any, Any]:
    from flax import nnx

    from lska_jax.nn.initial_values import OneKey, only_shapes

    def model() -> Any:
        with only_shapes():
            return build(config, rngs=OneKey())

    return nnx.split(nnx.eval_shape(model))


@functools.lru_cache(maxsize=64)
def _shapes(config: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    from flax import nnx

    from lska_jax.nn.functional import flat_values

    kept = nnx.state(nnx.merge(*_abstract(config)), nnx.Any(nnx.Param, nnx.BatchStat))
    return tuple((path, tuple(array.shape)) for path, array in flat_values(kept).items())
