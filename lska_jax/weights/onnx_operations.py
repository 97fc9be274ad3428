"""JAX's operations as ONNX's: what a network's forward pass is made of in evaluation mode.

``trace`` reads a jaxpr from start to end. What depends on parameters alone is computed here and
becomes a constant. Some of our own operations are written in another way, see ``onnx_own``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from lska_jax.weights.onnx_graph import Graph, Known, Order, Shape, Value
from lska_jax.weights.onnx_own import OWN

_UNARY = {
    "abs": "Abs",
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "not": "Not",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
}
_BINARY = {
    "add": "Add",
    "add_any": "Add",
    "and": "And",
    "div": "Div",
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "or": "Or",
    "pow": "Pow",
    "sub": "Sub",
}
_REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_sum": "ReduceSum"}
_UNCHANGED = frozenset({"copy", "copy_p", "optimization_barrier", "stop_gradient"})


def trace(graph: Graph, jaxpr: Jaxpr, consts: Sequence[Any], given: Sequence[Known]) -> list[Known]:
    """Add what a jaxpr computes to a graph; return its outputs.

    Args:
      graph: takes the nodes.
      jaxpr: of a forward pass.
      consts: its constants.
      given: its arguments.

    Raises:
      ValueError: an operation that is not known here.
    """
    found: dict[Any, Known] = {}
    found.update(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
    found.update(zip(jaxpr.invars, given, strict=True))

    def read(variable: Any) -> Known:
        if isinstance(variable, Literal):
            kind: Any = variable.aval
            return np.asarray(variable.val, kind.dtype)
        return found[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        outputs = _translate(graph, equation, inputs)
        found.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def _translate(graph: Graph, equation: Any, inputs: list[Known]) -> list[Known]:
    name = equation.primitive.name
    if name in _UNCHANGED:
        return inputs
    if name == "broadcast_in_dim":
        return [_broadcast(graph, equation, inputs[0])]
    called = _called(equation)
    if all(isinstance(known, np.ndarray) for known in inputs) and called is None:
        shapes = [variable.aval.shape for variable in equation.invars]
        if all(isinstance(side, int) for shape in shapes for side in shape):
            return _compute(graph, equation, inputs)
    if called is not None:
        own = OWN.get(_source(called.jaxpr))
        output = own(graph, called.jaxpr, inputs) if own else None
        if output is not None:
            return [output]
        return trace(graph, called.jaxpr, called.consts, inputs)
    if name in _UNARY:
        return [graph.elementwise(_UNARY[name], inputs)]
    if name in _BINARY:
        return [graph.elementwise(_BINARY[name], inputs)]
    rule = _RULES.get(name)
    if rule is None:
        raise ValueError(
            f"The operation {name} of JAX cannot be written as ONNX here; nothing was written. "
            "Export the model as .jaxexport."
        )
    written = rule(graph, equation, inputs)
    return written if isinstance(written, list) else [written]


def _called(equation: Any) -> ClosedJaxpr | None:
    """Return the jaxpr that an equation calls, if it is a call."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(name)
        if isinstance(inner, ClosedJaxpr):
            return inner
        if isinstance(inner, Jaxpr):
            return ClosedJaxpr(inner, ())
    return None


def _source(jaxpr: Jaxpr) -> str:
    """Return the file and the name of the function that a jaxpr was traced from."""
    told = getattr(getattr(jaxpr, "debug_info", None), "func_src_info", None) or ""
    function, _, place = told.partition(" at ")
    return f"{place.rpartition('/')[2].partition(':')[0]} {function}"


def _compute(graph: Graph, equation: Any, inputs: list[Known]) -> list[Known]:
    """Return the outputs of an equation whose inputs are known."""
    shapes = [variable.aval.shape for variable in equation.invars]
    arrays = [graph.whole(known, shape) for known, shape in zip(inputs, shapes, strict=True)]
    if equation.primitive.name in _NUMPY:
        outputs = [_NUMPY[equation.primitive.name](equation, *arrays)]
    else:
        with jax.ensure_compile_time_eval():
            outputs = equation.primitive.bind(*map(jnp.asarray, arrays), **equation.params)
        outputs = outputs if equation.primitive.multiple_results else [outputs]
    return [
        np.asarray(array, variable.aval.dtype)
        for array, variable in zip(outputs, equation.outvars, strict=True)
    ]


# Of parameters, without compiling a program for each shape.
_NUMPY: dict[str, Callable[..., Any]] = {
    "add": lambda equation, a, b: a + b,
    "convert_element_type": lambda equation, a: a,
    "div": lambda equation, a, b: a / b,
    "mul": lambda equation, a, b: a * b,
    "reshape": lambda equation, a: a.reshape(equation.params["new_sizes"]),
    "squeeze": lambda equation, a: a.reshape(equation.outvars[0].aval.shape),
    "sub": lambda equation, a, b: a - b,
    "transpose": lambda equation, a: a.transpose(equation.params["permutation"]),
}


def _shape(equation: Any) -> Shape:
    return tuple(equation.outvars[0].aval.shape)


def _whole(graph: Graph, equation: Any, inputs: list[Known], place: int = 0) -> Known:
    return graph.whole(inputs[place], tuple(equation.invars[place].aval.shape))


def _broadcast(graph: Graph, equation: Any, known: Known) -> Known:
    """Return an array of the rank that is wanted, with ones where it is to be broadcast."""
    sides: list[Any] = [1] * len(_shape(equation))
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        sides[place] = known.shape[axis]
    return graph.reshaped(known, tuple(sides))


def _convolve(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    params = equation.params
    numbers = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise ValueError("A transposed convolution cannot be written as ONNX here.")
    images, kernel = _whole(graph, equation, inputs), _whole(graph, equation, inputs, 1)
    padding = params["padding"]
    (name,) = graph.add(
        "Conv",
        graph.stored(images, numbers.lhs_spec),
        graph.stored(kernel, numbers.rhs_spec),
        pads=[low for low, _ in padding] + [high for _, high in padding],
        strides=list(params["window_strides"]),
        dilations=list(params["rhs_dilation"]),
        group=params["feature_group_count"],
    )
    return Value(name, _shape(equation), tuple(numbers.out_spec))


def _product(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    """Write a product as MatMul: batch axes first, one free axis and one summed on either side."""
    (left_summed, right_summed), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = _whole(graph, equation, inputs), _whole(graph, equation, inputs, 1)

    def free(known: Known, *taken: Sequence[int]) -> Order:
        return tuple(n for n in range(len(known.shape)) if all(n not in axes for axes in taken))

    left_free = free(left, left_summed, left_batch)
    right_free = free(right, right_summed, right_batch)
    shape = _shape(equation)
    order = tuple(range(len(shape)))
    is_plain = len(left_summed) == 1 and len(right_free) == 1
    if is_plain and (len(left_free) == 1 or not left_batch):
        first = graph.stored(left, (*left_batch, *left_free, *left_summed))
        second = graph.stored(right, (*right_batch, *right_summed, *right_free))
        return Value(graph.add("MatMul", first, second)[0], shape, order)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    words = [[""] * len(known.shape) for known in (left, right)]
    pairs = zip((*left_batch, *left_summed), (*right_batch, *right_summed), strict=True)
    for a, b in pairs:
        words[0][a] = words[1][b] = next(letters)
    out = [words[0][axis] for axis in left_batch]
    for word, axes in zip(words, (left_free, right_free), strict=True):
        for axis in axes:
            word[axis] = next(letters)
            out.append(word[axis])
    rule = f"{''.join(words[0])},{''.join(words[1])}->{''.join(out)}"
    (name,) = graph.add("Einsum", graph.stored(left), graph.stored(right), equation=rule)
    return Value(name, shape, order)


def _reduce(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    known = _whole(graph, equation, inputs)
    order = known.order if isinstance(known, Value) else tuple(range(known.ndim))
    axes = equation.params["axes"]
    places = graph.whole_numbers([order.index(axis) for axis in axes])
    operation = _REDUCTIONS[equation.primitive.name]
    (name,) = graph.add(operation, graph.stored(known, order), places, keepdims=0)
    kept = [axis for axis in order if axis not in axes]
    return Value(name, _shape(equation), tuple(sorted(kept).index(axis) for axis in kept))


def _transpose(graph: Graph, equation: Any, inputs: list[Known]) -> Known:
    known, moved = inputs[0], equation.params["permutation"]
    if isinstance(known, np.ndarray):
        return known.transpose(moved)
    shape = tuple(known.shape[axis] for axis in moved)
    return Value(known.name, shape, tuple(moved.index(axis) for axis in known.order))


def _reshape(graph: Graph, equation: Any, inputs: list[Known]) -> Known:
    return graph.reshaped(_whole(graph, equation, inputs), _shape(equation))


def _select(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    chosen, otherwise, where = inputs
    return graph.elementwise("Where", [chosen, where, otherwise])


def _cast(graph: Graph, equation: Any, inputs: list[Known]) -> Known:
    wanted = equation.params["new_dtype"]
    if wanted == equation.invars[0].aval.dtype:
        return inputs[0]
    known = inputs[0]
    if isinstance(known, np.ndarray):
        return known.astype(wanted)
    (name,) = graph.add("Cast", known.name, to=graph.kind_of(wanted))
    return Value(name, known.shape, known.order)


def _power(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    exponent = np.asarray(equation.params["y"], equation.invars[0].aval.dtype)
    return graph.elementwise("Pow", [inputs[0], exponent])


def _square(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    return graph.elementwise("Mul", [inputs[0], inputs[0]])


def _reciprocal_root(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    return graph.elementwise("Reciprocal", [graph.elementwise("Sqrt", inputs)])


def _slice(graph: Graph, equation: Any, inputs: list[Known]) -> Known:
    known, params = _whole(graph, equation, inputs), equation.params
    order = known.order if isinstance(known, Value) else tuple(range(known.ndim))
    strides = params["strides"] or (1,) * len(known.shape)
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    cut = [
        (axis, *bound) for axis, bound in enumerate(bounds) if bound != (0, known.shape[axis], 1)
    ]
    if not cut:
        return known
    axes, starts, ends, steps = zip(*cut, strict=True)
    places = [order.index(axis) for axis in axes]
    numbers = [graph.whole_numbers(list) for list in (starts, ends, places, steps)]
    (name,) = graph.add("Slice", graph.stored(known, order), *numbers)
    return Value(name, _shape(equation), order)


def _take_one(graph: Graph, equation: Any, inputs: list[Known]) -> Known:
    """Write indexing by numbers that are known: one slice, less the axes that it takes away.

    With a symbolic batch JAX traces ``x[:, 0]`` as a gather.
    """
    known, where, params = _whole(graph, equation, inputs), inputs[1], equation.params
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    if not isinstance(where, np.ndarray) or where.ndim != 1 or numbers.operand_batching_dims:
        raise ValueError("Looking up places that are computed cannot be written as ONNX here.")
    places = dict(zip(numbers.start_index_map, where.tolist(), strict=True))
    for axis, size in enumerate(sizes):
        if isinstance(size, int):
            known = _cut(graph, known, axis, places.get(axis, 0), size)
    return graph.reshaped(known, _shape(equation))


def _cut(graph: Graph, known: Known, axis: int, start: int, size: int) -> Known:
    if size == known.shape[axis]:
        return known
    # As JAX has it: a slice lies inside.
    start = min(max(start, 0), known.shape[axis] - size)
    order = known.order if isinstance(known, Value) else tuple(range(known.ndim))
    bounds = [graph.whole_numbers([n]) for n in (start, start + size, order.index(axis))]
    (name,) = graph.add("Slice", graph.stored(known, order), *bounds)
    return Value(name, (*known.shape[:axis], size, *known.shape[axis + 1 :]), order)


def _concatenate(graph: Graph, equation: Any, inputs: list[Known]) -> Value:
    every = [_whole(graph, equation, inputs, place) for place in range(len(inputs))]
    order = next(known.order for known in every if isinstance(known, Value))
    names = [graph.stored(known, order) for known in every]
    axis = order.index(equation.params["dimension"])
    return Value(graph.add("Concat", *names, axis=axis)[0], _shape(equation), order)


def _split(graph: Graph, equation: Any, inputs: list[Known]) -> list[Known]:
    known = _whole(graph, equation, inputs)
    assert isinstance(known, Value)
    sizes = graph.whole_numbers(equation.params["sizes"])
    axis = known.order.index(equation.params["axis"])
    outputs = len(equation.outvars)
    names = graph.add("Split", known.name, sizes, outputs=outputs, axis=axis)
    shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
    return [Value(name, shape, known.order) for name, shape in zip(names, shapes, strict=True)]


def _pad(graph: Graph, equation: Any, inputs: list[Known]) -> Known:
    known, filling = _whole(graph, equation, inputs), inputs[1]
    config = equation.params["padding_config"]
    if any(inner or low < 0 or high < 0 for low, high, inner in config):
        raise ValueError("Padding between or instead of pixels cannot be written as ONNX here.")
    if not any(low or high for low, high, _ in config):
        return known
    order = known.order if isinstance(known, Value) else tuple(range(known.ndim))
    pads = [config[axis][end] for end in (0, 1) for axis in order]
    names = (graph.stored(known, order), graph.whole_numbers(pads), graph.stored(filling))
    return Value(graph.add("Pad", *names)[0], _shape(equation), order)


_RULES: Mapping[str, Callable[[Graph, Any, list[Known]], Known | list[Known]]] = {
    "concatenate": _concatenate,
    "conv_general_dilated": _convolve,
    "convert_element_type": _cast,
    "dot_general": _product,
    "gather": _take_one,
    "integer_pow": _power,
    "pad": _pad,
    "reshape": _reshape,
    "rsqrt": _reciprocal_root,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _reshape,
    "transpose": _transpose,
    **dict.fromkeys(_REDUCTIONS, _reduce),
}
