"""Inputs and outputs of a network's modules by name, without a second forward pass by hand.

Works on a copy of the network inside a trace: chosen modules hand what they were called with, and
what they return, to a function, which may put something else in its place.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

# Path of a module, the module, the first argument of its call, what the call returned -> what it
# returns instead.
Watcher = Callable[[str, nnx.Module, Any, Any], Any]


def in_evaluation(network: nnx.Module) -> Any:
    """Return a network in evaluation mode, sharing its arrays."""
    return nnx.view(network, deterministic=True, use_running_average=True, raise_if_not_found=False)


def watched(
    network: nnx.Module, watcher: Watcher, *, is_wanted: Callable[[str, nnx.Module], bool]
) -> Any:
    """Return a copy of a network, sharing its arrays, whose wanted modules report their calls.

    The copy is for one trace: make it inside the traced function.

    Args:
      network: any network of this package, without ``remat``.
      watcher: called after each call of a wanted module.
      is_wanted: of a module's path ("stages/0/blocks/1") and the module.

    Raises:
      ValueError: the network recomputes its blocks, so that what they see cannot leave them.
    """
    if getattr(getattr(network, "config", None), "remat", False):
        raise ValueError("The network has remat=True; build it with remat=False to look inside.")
    copy = nnx.merge(*nnx.split(network), copy=True)
    for path, module in list(nnx.iter_modules(copy)):
        name = "/".join(map(str, path))
        if is_wanted(name, module):
            # Past nnx, which would take the function for a part of the network.
            object.__setattr__(module, "_watcher", functools.partial(watcher, name, module))
            object.__setattr__(module, "__class__", _reporting(type(module)))
    return copy


def inputs_by_name(
    network: Any,
    images: Float[Array | np.ndarray, "batch height width channels"],
    *,
    of: type | tuple[type, ...],
    read: Callable[[Any, Any], Array] | None = None,
) -> dict[str, Array]:
    """Return what the modules of some types are called with, or what is made of it, by path.

    Args:
      network: of any family.
      images: (B, H, W, C), normalised.
      of: types of modules.
      read: of a module and its input, inside the trace; None takes the input. The program is kept
        for the next call with the same function.

    Returns:
      {path: array}, in the order of the calls.
    """
    graph, state = nnx.split(in_evaluation(network))
    found = _read_inputs(state, jnp.asarray(images), graph=graph, of=of, read=read)
    return {path: array for one in found for path, array in one.items()}


@functools.partial(jax.jit, static_argnames=("graph", "of", "read"))
def _read_inputs(
    state: Any, images: Array, *, graph: Any, of: Any, read: Any
) -> list[dict[str, Array]]:
    # A dictionary each: JAX would bring the paths of one into the order of their names.
    found: list[dict[str, Array]] = []

    def keep(path: str, module: Any, x: Any, out: Any) -> Any:
        found.append({path: x if read is None else read(module, x)})
        return out

    def is_wanted(_: str, module: nnx.Module) -> bool:
        return isinstance(module, of)

    watched(nnx.merge(graph, state), keep, is_wanted=is_wanted)(images)
    return found


@functools.cache
def _reporting(kind: type) -> type:
    """Return the subclass whose calls are reported; one for each type, for JAX keeps them all."""

    def call(self: Any, x: Any, *arguments: Any, **options: Any) -> Any:
        out = kind.__call__(self, x, *arguments, **options)  # type: ignore[operator]
        return self._watcher(x, out)

    return type(kind.__name__, (kind,), {"__call__": call})
