"""Our own operations that are one operation of ONNX, or none.

A jaxpr shows them as calls with gradients of their own, traced from functions that are known here
by file and name. Were one not recognised, its insides would be written: the same function, slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, Literal

from lska_jax.weights.onnx_graph import Graph, Known, Value, shape_of

_CHANNELS_FIRST = (0, 3, 1, 2)


def _gelu(graph: Graph, jaxpr: Jaxpr, inputs: list[Known]) -> Value | None:
    return graph.elementwise("Gelu", inputs)


def _layer_norm(graph: Graph, jaxpr: Jaxpr, inputs: list[Known]) -> Value | None:
    known = inputs[0]
    epsilon = _epsilon(jaxpr)
    is_whole = tuple(known.shape) == shape_of(jaxpr.invars[0])
    if len(inputs) == 2 or epsilon is None or not is_whole:
        return None
    # Of a folded norm neither scale nor bias is left; ONNX wants a scale.
    inputs = inputs if len(inputs) == 3 else [known, np.ones(known.shape[-1:], np.float32)]
    (name,) = graph.add("LayerNormalization", *map(graph.stored, inputs), axis=-1, epsilon=epsilon)
    return Value(name, tuple(known.shape), tuple(range(len(known.shape))))


def _epsilon(jaxpr: Jaxpr) -> float | None:
    """Return what is added to the variance: the constant in the sum ahead of the root."""
    sums: dict[Any, Any] = {
        equation.outvars[0]: equation.invars
        for equation in jaxpr.eqns
        if equation.primitive.name == "add"
    }
    for equation in jaxpr.eqns:
        if equation.primitive.name == "rsqrt":
            for term in sums.get(equation.invars[0], ()):
                if isinstance(term, Literal):
                    return float(term.val)
    return None


def _mix_channels(graph: Graph, jaxpr: Jaxpr, inputs: list[Known]) -> Value | None:
    """Write a 1x1 convolution as one where channels come first, and as a product elsewhere."""
    known, kernel = inputs
    shape = shape_of(jaxpr.outvars[0])
    is_whole = tuple(known.shape) == shape_of(jaxpr.invars[0])
    if not isinstance(known, Value) or not isinstance(kernel, np.ndarray) or not is_whole:
        return None
    if known.order == _CHANNELS_FIRST:
        (name,) = graph.add("Conv", known.name, graph.constant(kernel.T[:, :, None, None]))
        return Value(name, shape, _CHANNELS_FIRST)
    (name,) = graph.add("MatMul", graph.stored(known), graph.constant(kernel))
    return Value(name, shape, tuple(range(len(shape))))


def _pass_on(graph: Graph, jaxpr: Jaxpr, inputs: list[Known]) -> Known | None:
    """Leave out the identity that keeps XLA from merging operations."""
    return inputs[0]


OWN: Mapping[str, Callable[[Graph, Jaxpr, list[Known]], Known | None]] = {
    "activation.py _gelu": _gelu,
    "fusion.py _select": _pass_on,
    "layer_norm.py _normalise": _layer_norm,
    "pointwise.py _convolve": _mix_channels,
}
