"""A model as pure functions over flat dictionaries of arrays.

The train step runs plain ``jax.jit`` over split state (several times cheaper a step than
``nnx.jit``). Its state is two flat dictionaries, parameters and BatchNorm statistics, keyed by
path ("stages/0/blocks/1/ffn/expand/kernel"): what checkpoints, decay masks, shardings and error
messages all speak of.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

FlatArrays = dict[str, jax.Array]


def flat_arrays(state: nnx.State) -> FlatArrays:
    """Return an ``nnx.State`` as {path joined by "/": array}, sorted by path."""
    return flat_values(state)


def flat_values(state: nnx.State) -> dict[str, Any]:
    """Return an ``nnx.State`` of arrays, or of their shapes, by path, sorted by path."""
    leaves = {
        "/".join(str(part) for part in path): variable.get_value()
        for path, variable in nnx.to_flat_state(state)
    }
    return dict(sorted(leaves.items()))


def parameters(model: nnx.Module) -> FlatArrays:
    """Return the trainable parameters of a model by path."""
    return flat_arrays(nnx.state(model, nnx.Param))


def batch_stats(model: nnx.Module) -> FlatArrays:
    """Return the running statistics of a model's BatchNorms by path."""
    return flat_arrays(nnx.state(model, nnx.BatchStat))


def assign(model: nnx.Module, arrays: Mapping[str, Any]) -> None:
    """Write arrays into a model's parameters and statistics, by path, in place.

    Raises:
      KeyError: a path that the model does not have.
    """
    variables = {
        "/".join(str(part) for part in path): variable
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    }
    for path, array in arrays.items():
        variables[path].set_value(array)


def one_program(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a module's method that is one compiled program when nothing else compiles it.

    Called on arrays, a network would compile each of its operations on its own: hundreds of
    programs, and several times the time of one. Under a transformation of JAX (``jax.jit``,
    ``jax.grad``, ``nnx.jit`` and so on) it is left as it is.

    Args:
      call: ``call(module, images, *, rngs=None)``; what it changes in the module stays changed.
    """
    compiled = nnx.jit(call)

    @functools.wraps(call)
    def run(module: Any, images: Any, *, rngs: Any = None) -> Any:
        chosen = compiled if _is_called_on_arrays(module, images) else call
        return chosen(module, images, rngs=rngs)

    return run


def _is_called_on_arrays(module: nnx.Module, images: Any) -> bool:
    """Tell whether nothing traces a call: neither its arguments nor the operations in it."""
    leaves = jax.tree.leaves((nnx.state(module), images))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False
    return not isinstance(jnp.zeros(()), jax.core.Tracer)


class ModelFunctions:
    """The two modes of a model as functions of its parameters and statistics.

    Args:
      model: any ``nnx.Module`` whose call is ``model(images, rngs=...)``, real or abstract (from
        ``nnx.eval_shape``). It is left as it is.
      frozen_statistics: paths of statistics that training normalises with, and does not change.
    """

    def __init__(self, model: nnx.Module, *, frozen_statistics: frozenset[str] = frozenset()):
        def split(*, is_training: bool) -> Any:
            mode = nnx.view(
                model,
                deterministic=not is_training,
                use_running_average=not is_training,
                raise_if_not_found=False,
            )
            if is_training and frozen_statistics:
                _freeze_statistics(mode, frozen_statistics)
            return nnx.split(mode, nnx.Param, nnx.BatchStat, ...)

        self._train_graph, self._params, self._stats, rest = split(is_training=True)
        self._eval_graph, *_ = split(is_training=False)
        # An abstract model has abstract random streams; calls bring their own keys anyway.
        self._rest = jax.tree.map(_concrete, rest)

    def train(
        self,
        params: FlatArrays,
        stats: FlatArrays,
        *inputs: Any,
        key: jax.Array,
        method: str = "__call__",
    ) -> tuple[Any, FlatArrays]:
        """Return the outputs and the updated statistics, in training mode.

        Args:
          params: parameters by path.
          stats: BatchNorm statistics by path.
          *inputs: images (B, H, W, C), normalised, and what else the method takes.
          key: a PRNG key for dropout and drop path.
          method: which of the model's is called; it takes ``rngs`` too.
        """
        model = self._merge(self._train_graph, params, stats)
        outputs = getattr(type(model), method)(model, *inputs, rngs=nnx.Rngs(dropout=key))
        return outputs, batch_stats(model)

    def evaluate(
        self, params: FlatArrays, stats: FlatArrays, *inputs: Any, method: str = "__call__"
    ) -> Any:
        """Return the outputs in evaluation mode; arguments are those of ``train``."""
        model = self._merge(self._eval_graph, params, stats)
        return getattr(type(model), method)(model, *inputs)

    def _merge(self, graph: nnx.GraphDef, params: FlatArrays, stats: FlatArrays) -> Any:
        return nnx.merge(
            graph,
            _restore(self._params, params),
            _restore(self._stats, stats),
            self._rest,
            copy=True,
        )


def _freeze_statistics(model: nnx.Module, paths: frozenset[str]) -> None:
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            own = "/".join(str(part) for part in path)
            module.use_running_average = f"{own}/mean" in paths


def _restore(template: nnx.State, arrays: FlatArrays) -> nnx.State:
    flat = [
        (path, variable.replace(arrays["/".join(str(part) for part in path)]))
        for path, variable in nnx.to_flat_state(template)
    ]
    return nnx.from_flat_state(flat)


def _concrete(leaf: Any) -> jax.Array:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)
