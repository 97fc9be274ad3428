"""What a compiled program sends between devices."""

import dataclasses
import re

from lska_jax.analysis import hlo

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SPELLED_OTHERWISE = {"ragged-all-to-all": "all-to-all", "collective-broadcast": "all-gather"}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Attributes:
      kind: one of ``KINDS``.
      bytes: what one device puts in, over all runs of the operation, padded to whole tiles.
      runs: how often it runs in one step.
      scope: where it comes from: the ``op_name`` of its metadata.
    """

    kind: str
    bytes: int
    runs: int
    scope: str


def collectives(text: str) -> list[Collective]:
    """Return every collective that a program executes.

    Args:
      text: ``compiled.as_text()``. An asynchronous one counts where it starts.
    """
    found = []
    for operation in hlo.operations(text):
        kind = _kind(operation, text)
        if kind:
            size = operation.runs * sum(buffer.size for buffer in operation.operands)
            found.append(Collective(kind, size, operation.runs, operation.scope))
    return found


def sums_by_kind(found: list[Collective]) -> dict[str, dict[str, int]]:
    """Return {kind: {"count", "bytes"}} of the kinds that occur, over all runs."""
    sums: dict[str, dict[str, int]] = {}
    for one in found:
        total = sums.setdefault(one.kind, {"count": 0, "bytes": 0})
        total["count"] += one.runs
        total["bytes"] += one.bytes
    return {kind: sums[kind] for kind in KINDS if kind in sums}


def _kind(operation: hlo.Operation, text: str) -> str:
    opcode = operation.opcode.removesuffix("-start")
    if opcode == "async":
        # The operation itself stands alone in the computation that the start calls.
        body = re.search(rf"^%?{re.escape(operation.called[0])} .*?^}}", text, re.S | re.M)
        inner = re.findall(r" ([a-z][\w\-]*)\(", body[0]) if body else []
        opcode = next((name for name in inner if name in KINDS), opcode)
    opcode = _SPELLED_OTHERWISE.get(opcode, opcode)
    return opcode if opcode in KINDS else ""
