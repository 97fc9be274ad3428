"""Time several callables alternately in one process.

Other programs and the clock of the processor change a machine's speed from minute to minute. Each
round takes one sample of every contender, so that all meet the same machine, and a ratio of medians
within one run says more than the seconds do.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

# Thread pools spin for a moment after their last task; a contender must not run beside the
# spinning threads of the one before.
PAUSE_SECONDS = 0.01
# A shorter call is repeated until one sample lasts this long: after the pause the first call has
# to wake the threads, which takes longer than a small operation does.
SAMPLE_SECONDS = 0.01
MOST_CALLS = 100


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one contender took.

    Attributes:
      seconds: median over the repetitions.
      quartiles: first and third, in seconds.
      repetitions: samples, warm-up excluded.
      calls: in a row that one sample is the mean of.
    """

    seconds: float
    quartiles: tuple[float, float]
    repetitions: int
    calls: int = 1


def measure_alternately(
    contenders: Mapping[str, Callable[[], Any]],
    *,
    seconds_each: float = 1.0,
    min_repetitions: int = 5,
    max_repetitions: int = 50,
    fewer: Mapping[str, int] | None = None,
    time_once: Callable[[Callable[[], Any]], float] | None = None,
    pause: Callable[[float], None] = time.sleep,
    show: Callable[[str], None] = lambda name: None,
) -> dict[str, Timing]:
    """Run every contender, warm-up first, in rounds; return what each took.

    Args:
      contenders: name -> a call that starts the work; arrays it returns are waited for.
      seconds_each: how long each contender may run altogether, beyond its least repetitions.
      min_repetitions: of each, whatever they take.
      max_repetitions: of each.
      fewer: name -> how often a slow contender runs, at most, with one warm-up instead of two.
      time_once: runs a contender and returns its seconds; None is ``seconds_of``.
      pause: waits for some seconds.
      show: is told the name of the contender that runs next.

    Raises:
      ValueError: there are no contenders.
    """
    if not contenders:
        raise ValueError("There is nothing to measure: no contenders were given.")
    fewer = fewer or {}

    def run(name: str, calls: int = 1) -> float:
        show(name)
        pause(PAUSE_SECONDS)
        timer = time_once or seconds_of
        return sum(timer(contenders[name]) for _ in range(calls)) / calls

    counts, calls = {}, {}
    for name in contenders:
        seconds = run(name)
        if name not in fewer:
            seconds = run(name)  # the first may have compiled
        calls[name] = max(1, math.ceil(SAMPLE_SECONDS / max(seconds, SAMPLE_SECONDS / MOST_CALLS)))
        fitting = int(seconds_each / max(seconds * calls[name], SAMPLE_SECONDS))
        count = min(max(fitting, min_repetitions), max_repetitions)
        counts[name] = min(count, fewer.get(name, count))
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for name in alternate(counts):
        measured[name].append(run(name, calls[name]))
    return {name: _timing(seconds, calls[name]) for name, seconds in measured.items()}


def seconds_of(call: Callable[[], Any]) -> float:
    """Run a call, wait for the arrays it returns, and return the seconds that took."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def alternate(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield every name as often as its count says, in rounds.

    Names with small counts are spread evenly over the rounds. Each round starts with another name:
    what a contender leaves in the caches is not always met by the same neighbour.
    """
    rounds = max(counts.values())
    names = list(counts)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            due = (number + 1) * counts[name] // rounds
            if due > number * counts[name] // rounds:
                yield name


def _timing(seconds: list[float], calls: int) -> Timing:
    if len(seconds) == 1:
        low = high = seconds[0]
    else:
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(statistics.median(seconds), (low, high), len(seconds), calls)
