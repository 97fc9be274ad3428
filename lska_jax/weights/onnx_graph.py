"""Arrays and nodes of an ONNX graph in the making.

A value knows the order in which its axes are stored: a convolution of ONNX wants the channels
behind the batch, ours are last. Elementwise operations work in the order that they find, so that
axes are moved only where an operation needs another order, and not at all inside a VAN's stage.
A value also knows which of its axes are still to be broadcast, which most operations do themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

INPUT = "images"
# The first with Gelu as one operation; onnxruntime knows it from 1.17 on.
OPSET = 20
IR_VERSION = 9

Shape = tuple[Any, ...]
Order = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Value:
    """An array that the graph computes.

    Attributes:
      name: in the graph.
      shape: by our axes; whole numbers, or expressions of the batch. An axis of 1 may stand for a
        longer one that it is to be broadcast along.
      order: which of our axes each stored axis is.
    """

    name: str
    shape: Shape
    order: Order

    @property
    def usual(self) -> Order:
        """The order in which the axes are stored as they are numbered."""
        return tuple(range(len(self.shape)))


# What is known already is an array, by our axes, that may be broadcast as well.
Known = Value | np.ndarray


class Graph:
    """Nodes and constants, in the order in which they are added.

    Args:
      onnx: the package.
      batch: the symbol of the batch, as the trace has it.
    """

    def __init__(self, onnx: Any, batch: Any):
        self._onnx = onnx
        self._batch = batch
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._names: dict[tuple[Any, ...], str] = {}

    def add(self, operation: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; return the names of what it computes."""
        number = len(self._nodes)
        names = [f"{operation}_{number}{f'_{n}' if outputs > 1 else ''}" for n in range(outputs)]
        node = self._onnx.helper.make_node(operation, list(inputs), names, **attributes)
        self._nodes.append(node)
        return names

    def constant(self, array: np.ndarray) -> str:
        """Return the name of a constant; small ones that are alike are one."""
        array = np.asarray(array, order="C")
        key = (array.dtype.str, array.shape, array.tobytes() if array.size < 64 else id(array))
        if array.size >= 64 or key not in self._names:
            name = f"constant_{len(self._constants)}"
            self._constants.append(self._onnx.numpy_helper.from_array(array, name))
            self._names[key] = name
        return self._names[key]

    def kind_of(self, dtype: Any) -> int:
        """Return ONNX's number of a dtype."""
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def whole_numbers(self, numbers: Sequence[int]) -> str:
        """Return the name of a constant list of whole numbers."""
        return self.constant(np.asarray(numbers, np.int64))

    def stored(self, known: Known, order: Order | None = None) -> str:
        """Return the name of an array with its axes stored in an order; None is the usual one."""
        if isinstance(known, np.ndarray):
            return self.constant(known if order is None else known.transpose(order))
        order = known.usual if order is None else order
        if known.order == order:
            return known.name
        moved = [known.order.index(axis) for axis in order]
        key = ("moved", known.name, *moved)
        if key not in self._names:
            (self._names[key],) = self.add("Transpose", known.name, perm=moved)
        return self._names[key]

    def elementwise(self, operation: str, inputs: Sequence[Known]) -> Value:
        """Add an operation on arrays of one rank and numbers, in the order that one is stored in.

        What is to be broadcast stays so, where no input has all of it.
        """
        rank = max(len(known.shape) for known in inputs)
        order = tuple(range(rank))
        for known in inputs:
            if isinstance(known, Value) and known.order != known.usual:
                order = known.order
                break
        names = [self.stored(known, order if known.shape else None) for known in inputs]
        (name,) = self.add(operation, *names)
        full = [known.shape for known in inputs if len(known.shape) == rank]
        shape = tuple(
            next((side for side in sides if not (isinstance(side, int) and side == 1)), 1)
            for sides in zip(*full, strict=True)
        )
        return Value(name, shape, order)

    def whole(self, known: Known, shape: Shape) -> Known:
        """Return an array with all that is to be broadcast repeated."""
        if tuple(known.shape) == shape:
            return known
        if isinstance(known, np.ndarray) and all(isinstance(side, int) for side in shape):
            return np.broadcast_to(known, shape)
        sides = [self._side(side) for side in shape]
        (wanted,) = self.add("Concat", *sides, axis=0)
        (name,) = self.add("Expand", self.stored(known), wanted)
        return Value(name, shape, tuple(range(len(shape))))

    def reshaped(self, known: Known, shape: Shape) -> Known:
        """Return an array, nothing of which is to be broadcast, in another shape."""
        if tuple(known.shape) == shape:
            return known
        sides = [side if isinstance(side, int) else -1 for side in shape]
        if isinstance(known, np.ndarray):
            return known.reshape(sides)
        (name,) = self.add("Reshape", self.stored(known), self.whole_numbers(sides))
        return Value(name, shape, tuple(range(len(shape))))

    def model(self, given: Shape, outputs: dict[str, Known], *, metadata: dict[str, str]) -> bytes:
        """Return the file.

        Args:
          given: shape of the input; its first axis is the batch.
          outputs: by name, float32 and whole.
          metadata: texts that a reader of the file finds in it.
        """
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        infos = []
        for name, known in outputs.items():
            self._nodes.append(helper.make_node("Identity", [self.stored(known)], [name]))
            infos.append(helper.make_tensor_value_info(name, kind, _named(tuple(known.shape))))
        graph = helper.make_graph(
            self._nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, kind, _named(given))],
            infos,
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="lska_jax",
        )
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    def _side(self, side: Any) -> str:
        """Return the name of a list of one number: the length of an axis."""
        if isinstance(side, int):
            return self.whole_numbers([side])
        if side != self._batch:
            raise ValueError(f"An axis of length {side} cannot be written as ONNX.")
        if "batch" not in self._names:
            (self._names["batch",],) = self.add("Shape", INPUT, start=0, end=1)
        return self._names["batch",]


def shape_of(variable: Any) -> Shape:
    """Return the shape of a jaxpr's variable."""
    return tuple(variable.aval.shape)


def _named(shape: Shape) -> list[int | str]:
    return [side if isinstance(side, int) else str(side) for side in shape]
