"""What this project set out to reach in speed, and what the stored results say of it.

Every goal but one is a ratio within one run. Where maps differ, the four of tiny (on TPU of base)
are listed, from 56x56 to 7x7; k = 23 unless it is said. The goals over inference engines and over
compiled PyTorch were set on a processor with AVX-512, and are read off the results of that kind.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import engines, first_answer, first_step, model, ops, reading, tpu_tables
from benchmarks.results import NOT_YET_RUN, markdown_table, read_result

NAME = "goals"
VERDICTS = f"{NAME} verdicts"
FASTER_PYTORCH = "PyTorch, eager or compiled"
_K = 23
_SIZE = "tiny"
_BATCH_SIZE = 8
_BOTH = ops.MODES[1]
_AIM, _GOAL = "aim reached", "reached"
_WIDE, _TPU = "AVX-512", "v5e, compiled"
# Where conditions do not name the vectors, as older ones do not, what the pages say of them.
_VECTORS = {
    ops.NAME: "AVX2",
    model.NAME: "AVX2",
    first_step.NAME: "AVX2",
    reading.NAME: "AVX-512",
}

_Seconds = Mapping[str, float]


class Goal(NamedTuple):
    """A ratio to reach.

    Attributes:
      name: what is compared.
      processor: what it was measured on.
      limit: what it has to be, at least or at most.
      aim: what it is hoped to be.
      found: what it is, a value for each map or one.
      is_at_most: whether smaller is better.
    """

    name: str
    processor: str
    limit: float
    aim: float
    found: list[float]
    is_at_most: bool = False

    def verdict(self) -> str:
        """Say whether all values reach the aim, or the goal, or how many miss it."""

        def missing(limit: float) -> int:
            sign = -1 if self.is_at_most else 1
            return sum(sign * value < sign * limit for value in self.found)

        if not self.found:
            return NOT_YET_RUN
        if not missing(self.limit):
            return _GOAL if missing(self.aim) else _AIM
        return f"missed at {missing(self.limit)} of {len(self.found)}"


def tables(folder: Path) -> dict[str, str]:
    """Return the Markdown table of all goals, and one line of their verdicts, made from JSON files.

    Args:
      folder: of the JSON files.
    """
    lines, goals = [], list(_goals(folder))
    for goal in goals:
        sign = "at most " if goal.is_at_most else ""
        found = " / ".join(f"{value:.2f}" for value in goal.found)
        limits = [f"{sign}{value:g}" for value in (goal.limit, goal.aim)]
        lines.append([goal.name, goal.processor, *limits, found, goal.verdict()])
    header = ["Ratio", "measured on", "goal", "aim", "found", "verdict"]
    return {NAME: markdown_table(header, lines), VERDICTS: _counted(goals)}


def _counted(goals: Iterable[Goal]) -> str:
    """Return how many goals there are of each verdict, in a sentence."""
    verdicts = Counter(goal.verdict() for goal in goals)
    counts = {
        "aim reached": verdicts[_AIM],
        "goal reached and aim missed": verdicts[_GOAL],
        "goal missed": sum(n for verdict, n in verdicts.items() if verdict.startswith("missed")),
        NOT_YET_RUN: verdicts[NOT_YET_RUN],
    }
    shown = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
    return f"Of {verdicts.total()} goals: {shown}."


def _goals(folder: Path) -> Iterator[Goal]:
    forward, both = (_cascades(folder, mode) for mode in ops.MODES)
    here = _vectors(folder, ops.NAME)
    yield Goal("cascade forward, over lax", here, 15, 30, _ratios(forward, _lax, _ours))
    yield Goal(f"cascade {_BOTH}, over lax", here, 10, 25, _ratios(both, _lax, _ours))
    yield Goal(f"cascade {_BOTH}, over eager PyTorch", here, 1, 2, _ratios(both, _torch, _ours))

    inference, train = (_networks(folder, mode, _K) for mode in ("inference", "train"))
    here, network = _vectors(folder, model.NAME), "tiny, batch 8"
    yield Goal(
        f"{network}, inference, over eager PyTorch",
        here,
        1.1,
        1.6,
        _ratios(inference, _torch, _our_best),
    )
    yield Goal(f"{network}, {_BOTH}, over eager PyTorch", here, 0.65, 1.2, _ratios(train, _torch))
    yield Goal(f"{network}, {_BOTH}, over all-lax", here, 9, 20, _ratios(train, _all_lax))
    small, large = (_networks(folder, "train", k) for k in (7, 53))
    growth = [b[model.OURS] / a[model.OURS] for a, b in zip(small, large, strict=False)]
    yield Goal(f"{network}, {_BOTH}, time at k = 53 over k = 7", here, 1.15, 1.05, growth, True)
    yield from _engine_goals(folder)

    first = (read_result(folder, first_step.NAME) or {"rows": []})["rows"]
    seconds = [
        sum(row["seconds"][phase] for phase in ("trace", "compile", "first step"))
        for row in first
        if (row["size"], row["form"]) == (_SIZE, first_step.AS_IT_IS)
    ]
    here = _vectors(folder, first_step.NAME)
    yield Goal("tiny, trace + compile + first train step, in seconds", here, 25, 25, seconds, True)

    starts = {
        (row["what"], row["start"]): row["seconds"]
        for row in (read_result(folder, first_answer.NAME) or {"rows": []})["rows"]
    }
    ours = starts.get((first_answer.PREDICT, first_answer.SECOND))
    timm = starts.get((first_answer.TIMM, first_answer.SECOND))
    found = [timm / ours] if ours and timm else []
    here = _vectors(folder, first_answer.NAME)
    yield Goal("predict, one photo, second start, over timm's convnext_atto", here, 1.3, 2, found)

    read = {
        row["contender"]: row["images"] / row["seconds"]
        for row in (read_result(folder, reading.NAME) or {"rows": []})["rows"]
        if (row["what"], row["width"]) == (reading.TRAINING, reading.IMAGENET_SIZE[0])
    }
    found = [read[reading.OURS] / read[reading.TIMM]] if reading.TIMM in read else []
    here = _vectors(folder, reading.NAME)
    yield Goal("reading, training recipe, one core, over timm", here, 1.6, 2, found)
    yield from _tpu_goals(folder)


def _engine_goals(folder: Path) -> Iterator[Goal]:
    """Yield the goals over compiled engines, on the kind of processor that they were set on."""
    cells = engine_cells(folder, engines.WIDE)

    def found(mode: str, batch_size: int, rival: str, ours: str = engines.JAX) -> list[float]:
        seconds = cells.get(engines.Case(mode, batch_size, _K), {})
        return [seconds[rival] / seconds[ours]] if {rival, ours} <= set(seconds) else []

    for batch_size, rival, limit, aim in (
        (8, engines.RUNTIME, 0.9, 1.2),
        (8, engines.OPENVINO, 1.1, 1.5),
        (1, engines.OPENVINO, 0.9, 1.2),
    ):
        name = f"{_SIZE}, batch {batch_size}, inference, over {rival}"
        yield Goal(name, _WIDE, limit, aim, found("inference", batch_size, rival))
    name = f"{_SIZE}, batch 8, inference in bfloat16, over ours in float32"
    ratio = found("inference", 8, engines.JAX, engines.JAX_BFLOAT16)
    yield Goal(name, _WIDE, 1.3, 2, ratio)
    for batch_size, limit in ((8, 1.6), (32, 1.3)):
        name = f"{_SIZE}, batch {batch_size}, {_BOTH}, over {FASTER_PYTORCH}"
        yield Goal(name, _WIDE, limit, 2, found("train", batch_size, FASTER_PYTORCH))


def engine_cells(folder: Path, name: str) -> dict[engines.Case, dict[str, float]]:
    """Return the seconds of every contender, and of the faster PyTorch, by case.

    Args:
      folder: of the JSON files.
      name: ``engines.WIDE`` or ``engines.NARROW``.
    """
    found: dict[engines.Case, dict[str, float]] = {}
    for row in (read_result(folder, name) or {"rows": []})["rows"]:
        case = engines.Case(row["mode"], row["batch_size"], row["k"])
        found.setdefault(case, {})[row["contender"]] = row["seconds"]
    for seconds in found.values():
        pytorch = [seconds[name] for name in (engines.EAGER, engines.COMPILED) if name in seconds]
        if pytorch:
            seconds[FASTER_PYTORCH] = min(pytorch)
    return found


def _tpu_goals(folder: Path) -> Iterator[Goal]:
    """Yield the goals of compiled programs' bytes."""
    compiled = tpu_tables.read(folder) or {}
    maps, steps = compiled.get("cascade", {}).get("base", []), compiled.get("step", {})
    yield Goal(
        "TPU bytes, cascade forward, fused, over one read and write",
        _TPU,
        1.3,
        1.05,
        [row["pallas forward"]["over_read_and_write"] for row in maps],
        True,
    )
    yield Goal(
        f"TPU bytes, cascade {_BOTH}, fused, over lax",
        _TPU,
        0.68,
        0.4,
        [row["pallas forward_backward"]["over_lax"] for row in maps],
        True,
    )
    accessed = {name: step["bytes_accessed_mb"] for name, step in steps.items()}
    over_lax = [accessed["pallas"] / accessed["xla"]] if {"pallas", "xla"} <= set(accessed) else []
    yield Goal("TPU bytes, train step of base, over all-lax", _TPU, 0.95, 0.7, over_lax, True)


def _vectors(folder: Path, name: str) -> str:
    """Return the widest vectors of the processor that results are of, "" where there are none."""
    result = read_result(folder, name)
    if result is None:
        return ""
    named = result["conditions"]["processor"].rpartition(" with ")[2]
    return named if named.startswith("AVX") else _VECTORS[name]


def _cascades(folder: Path, mode: str) -> list[_Seconds]:
    """Return the seconds of every contender, a dictionary for each map of tiny."""
    found: dict[int, dict[str, float]] = {}
    for row in (read_result(folder, ops.NAME) or {"rows": []})["rows"]:
        if (row["group"], row["model"], row["k"], row["mode"]) == (ops.CASCADE, _SIZE, _K, mode):
            found.setdefault(row["stage"], {})[row["contender"]] = row["seconds"]
    return [found[stage] for stage in sorted(found)]


def _networks(folder: Path, mode: str, k: int) -> list[_Seconds]:
    """Return the seconds of every contender for tiny, one dictionary or none."""
    case = (_SIZE, mode, _BATCH_SIZE, k)
    found = {
        row["contender"]: row["seconds"]
        for row in (read_result(folder, model.NAME) or {"rows": []})["rows"]
        if (row["size"], row["mode"], row["batch_size"], row["k"]) == case
    }
    return [found] if found else []


def _ratios(
    cells: list[_Seconds],
    theirs: Callable[[_Seconds], float | None],
    ours: Callable[[_Seconds], float] = lambda seconds: seconds[model.OURS],
) -> list[float]:
    pairs = [(theirs(seconds), ours(seconds)) for seconds in cells]
    return [other / own for other, own in pairs if other is not None]


def _ours(seconds: _Seconds) -> float:
    return seconds["auto"]


def _lax(seconds: _Seconds) -> float:
    return seconds["xla"]


def _all_lax(seconds: _Seconds) -> float:
    return seconds[model.ALL_LAX]


def _torch(seconds: _Seconds) -> float | None:
    """Return eager PyTorch's best: of both memory formats and, in inference, folded or not."""
    formats = [name for name in seconds if name.startswith("torch ")]
    return min((seconds[name] for name in formats), default=None)


def _our_best(seconds: _Seconds) -> float:
    """Return our best in float32: in inference folded or not, as on the other side."""
    return min(seconds[name] for name in (model.OURS, model.FOLDED) if name in seconds)
