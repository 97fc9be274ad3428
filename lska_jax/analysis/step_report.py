"""What a train or evaluation step needs of each device that it is compiled for."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax

from lska_jax.analysis.collectives import collectives, sums_by_kind
from lska_jax.analysis.tpu_compile import hidden_cpu_flags
from lska_jax.training.program import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepReport:
    """What the compiler says of one step, for each device.

    Attributes:
      fits: the compiler found room for it in the device's memory.
      refusal: its own words where it did not; all figures but the seconds are then 0.
      argument_bytes: state and batch.
      temporary_bytes: intermediate values, at once.
      output_bytes: results beyond those that take the place of donated arguments.
      code_bytes: the program itself.
      flops: XLA's count; a Pallas kernel counts what its cost estimate says.
      bytes_accessed: XLA's count, operands plus results of every operation, in all memories.
      collectives: {kind: {"count", "bytes"}}, see ``analysis.collectives``.
      compile_seconds: tracing, lowering and compiling here.
    """

    fits: bool
    refusal: str = ""
    argument_bytes: int = 0
    temporary_bytes: int = 0
    output_bytes: int = 0
    code_bytes: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    collectives: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    compile_seconds: float = 0.0

    @property
    def total_bytes(self) -> int:
        """Memory of the step: arguments, temporaries, outputs and code."""
        parts = (self.argument_bytes, self.temporary_bytes, self.output_bytes, self.code_bytes)
        return sum(parts)


def report_step(program: Program) -> StepReport:
    """Compile a step for the devices of its mesh and read what it needs.

    Args:
      program: over a mesh of a TPU topology's devices, or of devices that are here.
    """
    started = time.monotonic()
    try:
        with hidden_cpu_flags():
            compiled = program.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return StepReport(
            fits=False,
            refusal=str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: "),
            compile_seconds=time.monotonic() - started,
        )
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return StepReport(
        fits=True,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        flops=cost.get("flops", 0.0),
        bytes_accessed=cost.get("bytes accessed", 0.0),
        collectives=sums_by_kind(collectives(compiled.as_text() or "")),
        compile_seconds=time.monotonic() - started,
    )


def largest_that_fits(
    bytes_of: Callable[[int], int | None], *, start: int, capacity: int, unit: int
) -> int:
    """Find the largest number of images a device, by as few compilations as possible.

    Memory grows about linearly with the images, so every guess is where a line through the last
    two that fit meets the capacity, kept between what fits and what does not.

    Args:
      bytes_of: images a device -> memory of the step, or None where it does not fit.
      start: the first guess, a multiple of ``unit``.
      capacity: memory of a device, in bytes.
      unit: what the answer is a multiple of.

    Returns:
      The largest multiple of ``unit`` that fits, 0 if not even ``unit`` does.
    """
    fitting: list[tuple[int, int]] = [(0, 0)]
    too_large = math.inf
    guess = start
    while True:
        size = bytes_of(guess)
        if size is None:
            too_large = min(too_large, guess)
        else:
            fitting.append((guess, size))
            fitting.sort()
        low = fitting[-1][0]
        if low + unit >= too_large:
            return low
        guess = _next_guess(fitting, capacity, unit)
        guess = max(guess, low + unit)
        if guess >= too_large:
            # The line was too hopeful: halve what is left.
            guess = max(low + unit, (low + int(too_large)) // 2 // unit * unit)


def _next_guess(fitting: list[tuple[int, int]], capacity: int, unit: int) -> int:
    if len(fitting) < 2:
        return unit
    # The first line goes through nothing at no images: what does not grow makes it careful.
    (low, low_size), (high, high_size) = fitting[-2:]
    slope = max((high_size - low_size) / (high - low), 1.0)
    return int(high + (capacity - high_size) / slope) // unit * unit
