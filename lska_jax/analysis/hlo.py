"""Read an optimised XLA program: the bytes of every operation, by operation and by scope.

``compiled.as_text()`` names every executed operation with its operands, their layouts and tiles,
and the ``jax.named_scope`` it came from. The bytes of an operation are those of its operands plus
those of its results, padded to whole tiles as they lie in memory: what it moves if it reads every
operand once. XLA's own "bytes accessed" counts the same way, except that it leaves out what a
fusion only slices.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator

_FREE = frozenset(
    {
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "partition-id",
        "iota",
        "optimization-barrier",
    }
)
_SLICES = frozenset({"slice", "dynamic-slice", "slice-start", "dynamic-slice-start"})
# Pieces that already lie one behind the other, seen as one array.
_FREE_TARGETS = frozenset({"ConcatBitcast"})
_MOVES = frozenset({"copy", "transpose", "copy-start"})
_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^([a-z][\w\-]*)\(")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """An array as it lies in memory.

    Attributes:
      text: dtype, shape and layout as the program prints them.
      size: bytes, padded to whole tiles.
      is_on_chip: it lies in the core's own memory (VMEM), not in HBM.
    """

    text: str
    size: int
    is_on_chip: bool


@dataclasses.dataclass(frozen=True)
class Operation:
    """One executed operation of an optimised program.

    Attributes:
      name: its name in the program.
      opcode: such as "fusion", "copy", "custom-call".
      results: buffers that it writes.
      operands: buffers that it reads.
      operand_names: names of the operations that produce the operands.
      scope: ``op_name`` of its metadata: the ``jax.named_scope`` path.
      computation: the computation that it is listed in.
      called: names of the computations that it runs, such as a fusion's body.
      target: the target of a custom call, such as "tpu_custom_call"; otherwise empty.
      runs: how often it runs, by the known trip counts of the loops around it.
    """

    name: str
    opcode: str
    results: tuple[Buffer, ...]
    operands: tuple[Buffer, ...]
    operand_names: tuple[str, ...]
    scope: str
    computation: str
    called: tuple[str, ...]
    target: str
    runs: int = 1

    @property
    def bytes_accessed(self) -> int:
        """Operands plus results, in all memories, over all runs."""
        return self.runs * sum(b.size for b in (*self.operands, *self.results))

    @property
    def hbm_bytes(self) -> int:
        """Operands plus results that lie in HBM, over all runs."""
        buffers = (*self.operands, *self.results)
        return self.runs * sum(b.size for b in buffers if not b.is_on_chip)


def operations(text: str) -> list[Operation]:
    """Return the operations that a program executes and that move bytes.

    Args:
      text: ``compiled.as_text()``.

    Returns:
      Those of the entry computation and of the loops and branches it calls, not the bodies of
      fusions. An asynchronous operation counts where it starts.
    """
    computations = _parse(text)
    entry = next(name for name, (is_entry, _) in computations.items() if is_entry)
    return list(_executed(computations, entry, 1))


def bytes_by(
    executed: Iterable[Operation], part_of: Callable[[Operation], str]
) -> dict[str, tuple[int, int]]:
    """Return (bytes accessed, bytes in HBM) of every part, largest first."""
    sums: dict[str, list[int]] = {}
    for operation in executed:
        total = sums.setdefault(part_of(operation), [0, 0])
        total[0] += operation.bytes_accessed
        total[1] += operation.hbm_bytes
    ordered = sorted(sums.items(), key=lambda item: -item[1][0])
    return {part: (accessed, hbm) for part, (accessed, hbm) in ordered}


def relayouts(executed: Iterable[Operation], text: str) -> list[Operation]:
    """Return the operations that only move an array into another layout.

    Args:
      executed: from ``operations``.
      text: the program they were read from.

    Returns:
      Copies and transposes between two layouts, alone or as a fusion that computes nothing else.
      A copy into on-chip memory in the same layout is a prefetch and is left out.
    """
    computations = _parse(text)
    found = []
    for operation in executed:
        is_move = operation.opcode in _MOVES or (
            operation.opcode == "fusion"
            and all(_only_moves(computations, body) for body in operation.called)
        )
        if is_move and operation.results and operation.operands and not _same_layout(operation):
            found.append(operation)
    return found


def around_custom_calls(executed: list[Operation], moves: Iterable[Operation]) -> list[Operation]:
    """Return the moves that feed a custom call or take its result, prefetches between included."""
    producers = {op.name: op for op in executed}
    calls = [op for op in executed if op.target == "tpu_custom_call"]

    def origins(operation: Operation) -> set[str]:
        """Return the producers of its operands, seen through slices and copies as they lie."""
        found: set[str] = set()
        for name in operation.operand_names:
            producer = producers.get(name)
            is_prefetch = producer and (
                producer.opcode in _SLICES or (producer.opcode in _MOVES and _same_layout(producer))
            )
            found |= origins(producer) if producer and is_prefetch else {name}
        return found

    feeding = set().union(*map(origins, calls))
    names = {call.name for call in calls}
    return [move for move in moves if move.name in feeding or origins(move) & names]


def _executed(
    computations: dict[str, tuple[bool, list[Operation]]], name: str, runs: int
) -> Iterator[Operation]:
    for operation in computations[name][1]:
        if operation.opcode in ("while", "conditional", "call"):
            for body in operation.called:
                yield from _executed(computations, body, runs * operation.runs)
        elif not (
            operation.opcode in _FREE
            or operation.opcode.endswith("-done")
            or operation.target in _FREE_TARGETS
        ):
            yield dataclasses.replace(operation, runs=runs)


def _only_moves(computations: dict[str, tuple[bool, list[Operation]]], body: str) -> bool:
    opcodes = {op.opcode for op in computations[body][1]}
    return bool(opcodes & _MOVES) and opcodes <= _MOVES | _FREE | {"reshape"}


def _same_layout(operation: Operation) -> bool:
    def layout(buffer: Buffer) -> str:
        return re.sub(r"S\(\d+\)", "", buffer.text)

    return layout(operation.results[0]) == layout(operation.operands[0])


def _parse(text: str) -> dict[str, tuple[bool, list[Operation]]]:
    computations: dict[str, tuple[bool, list[Operation]]] = {}
    current = ""
    buffers: dict[str, tuple[Buffer, ...]] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = header[2]
            computations[current] = (header[1] is not None, [])
            buffers, sources = {}, {}
        elif current and (found := _INSTRUCTION.match(line)):
            operation = _operation(found[2], found[3], current, buffers, sources)
            computations[current][1].append(operation)
    return computations


def _operation(
    name: str,
    rest: str,
    computation: str,
    buffers: dict[str, tuple[Buffer, ...]],
    sources: dict[str, tuple[str, ...]],
) -> Operation:
    end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode_match = _OPERATION.match(rest)
    opcode = opcode_match[1] if opcode_match else "unknown"
    close = _closing(rest, len(opcode))
    arguments, attributes = rest[len(opcode) + 1 : close - 1], rest[close:]
    names = tuple(re.findall(r"%([\w.\-]+)", arguments))
    results = _buffers(shape)
    if opcode.endswith("-start") and len(results) > 1:
        # The tuple of a start lists the operand again and a context; only what is written counts.
        results = results[:1] if opcode == "copy-start" else results[1:2]
    buffers[name] = results
    target = re.search(r'custom_call_target="([^"]*)"', attributes)
    # A view's sources are what it views.
    viewed = tuple(source for n in names for source in sources.get(n, (n,)))
    if (
        opcode == "bitcast"
        or opcode.endswith("-done")
        or (target is not None and target[1] in _FREE_TARGETS)
    ):
        sources[name] = viewed
    elif opcode == "get-tuple-element":
        sources[name] = names
    operands = tuple(b for n in names for b in buffers.get(n, ()))
    if opcode in _SLICES and operands:
        operands = (dataclasses.replace(operands[0], size=sum(b.size for b in results)),)
    metadata = re.search(r'op_name="([^"]*)"', attributes)
    called = re.findall(
        r"(?:calls|body|to_apply|true_computation|false_computation)=%([\w.\-]+)", attributes
    )
    branches = re.search(r"branch_computations=\{([^}]*)\}", attributes)
    called += re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
    trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', attributes)
    return Operation(
        name=name,
        opcode=opcode,
        results=results,
        operands=operands,
        operand_names=viewed,
        scope=metadata[1] if metadata else "",
        computation=computation,
        called=tuple(called),
        target=target[1] if target else "",
        runs=int(trips[1]) if trips else 1,
    )


def _closing(text: str, start: int) -> int:
    """Return the position behind the parenthesis that closes the one at ``start``."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    raise ValueError(f"Unbalanced parentheses in a line of the program: {text[:80]!r}.")


def _buffers(shape: str) -> tuple[Buffer, ...]:
    return tuple(
        Buffer(match[0], _padded_bytes(match[1], match[2], match[3] or ""), "S(1)" in match[0])
        for match in _ARRAY.finditer(re.sub(r"/\*.*?\*/", "", shape))
    )


def _padded_bytes(dtype: str, dims: str, layout: str) -> int:
    sizes = [int(d) for d in dims.split(",") if d]
    order, _, tiling = layout.partition(":")
    minor_to_major = [int(d) for d in order.split(",") if d]
    physical = [sizes[d] for d in reversed(minor_to_major)] if minor_to_major else sizes
    if tile := re.match(r"T\(([\d,]+)\)", tiling):
        tile_sizes = [int(t) for t in tile[1].split(",")][-len(physical) :] if physical else []
        for axis, size in enumerate(reversed(tile_sizes), start=1):
            physical[-axis] = -(-physical[-axis] // size) * size
    digits = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype, int(digits[0]) if digits else 8)
    return math.prod(physical) * bits // 8
