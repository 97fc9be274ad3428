"""What this project set out to reach in speed, and what the stored results say of it.

Every goal but one is a ratio within one run. Where maps differ, the four of tiny (on TPU of base)
are listed, from 56x56 to 7x7; k = 23 unless it is said.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import first_answer, first_step, model, ops, reading, tpu_tables
from benchmarks.results import NOT_YET_RUN, markdown_table, read_result

NAME = "goals"
_K = 23
_SIZE = "tiny"
_BATCH_SIZE = 8
_BOTH = ops.MODES[1]

_Seconds = Mapping[str, float]


class Goal(NamedTuple):
    """A ratio to reach.

    Attributes:
      name: what is compared.
      limit: what it has to be, at least or at most.
      aim: what it is hoped to be.
      found: what it is, a value for each map or one.
      is_at_most: whether smaller is better.
    """

    name: str
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
            return "reached" if missing(self.aim) else "aim reached"
        return f"missed at {missing(self.limit)} of {len(self.found)}"


def tables(folder: Path) -> dict[str, str]:
    """Return the Markdown table of all goals, made from the JSON files of a folder."""
    lines = []
    for goal in _goals(folder):
        sign = "at most " if goal.is_at_most else ""
        found = " / ".join(f"{value:.2f}" for value in goal.found)
        limits = [f"{sign}{value:g}" for value in (goal.limit, goal.aim)]
        lines.append([goal.name, *limits, found, goal.verdict()])
    return {NAME: markdown_table(["Ratio", "goal", "aim", "found", "verdict"], lines)}


def _goals(folder: Path) -> Iterator[Goal]:
    forward, both = (_cascades(folder, mode) for mode in ops.MODES)
    yield Goal("cascade forward, over lax", 15, 30, _ratios(forward, _lax, _ours))
    yield Goal(f"cascade {_BOTH}, over lax", 10, 25, _ratios(both, _lax, _ours))
    yield Goal(f"cascade {_BOTH}, over PyTorch's best", 1, 2, _ratios(both, _torch, _ours))

    inference, train = (_networks(folder, mode, _K) for mode in ("inference", "train"))
    network = "tiny, batch 8"
    yield Goal(
        f"{network}, inference, over PyTorch's best",
        1.1,
        1.6,
        _ratios(inference, _torch, _our_best),
    )
    yield Goal(f"{network}, {_BOTH}, over PyTorch's best", 0.65, 1.2, _ratios(train, _torch))
    yield Goal(f"{network}, {_BOTH}, over all-lax", 9, 20, _ratios(train, _all_lax))
    small, large = (_networks(folder, "train", k) for k in (7, 53))
    growth = [b[model.OURS] / a[model.OURS] for a, b in zip(small, large, strict=False)]
    yield Goal(f"{network}, {_BOTH}, time at k = 53 over k = 7", 1.15, 1.05, growth, True)

    first = (read_result(folder, first_step.NAME) or {"rows": []})["rows"]
    seconds = [
        sum(row["seconds"][phase] for phase in ("trace", "compile", "first step"))
        for row in first
        if (row["size"], row["form"]) == (_SIZE, first_step.AS_IT_IS)
    ]
    yield Goal("tiny, trace + compile + first train step, in seconds", 25, 25, seconds, True)

    starts = {
        (row["what"], row["start"]): row["seconds"]
        for row in (read_result(folder, first_answer.NAME) or {"rows": []})["rows"]
    }
    ours = starts.get((first_answer.PREDICT, first_answer.SECOND))
    timm = starts.get((first_answer.TIMM, first_answer.SECOND))
    found = [timm / ours] if ours and timm else []
    yield Goal("predict, one photo, second start, over timm's convnext_atto", 1.3, 2, found)

    read = {
        row["contender"]: row["images"] / row["seconds"]
        for row in (read_result(folder, reading.NAME) or {"rows": []})["rows"]
        if (row["what"], row["width"]) == (reading.TRAINING, reading.IMAGENET_SIZE[0])
    }
    found = [read[reading.OURS] / read[reading.TIMM]] if reading.TIMM in read else []
    yield Goal("reading, training recipe, one core, over timm", 1.6, 2, found)

    compiled = tpu_tables.read(folder) or {}
    maps, steps = compiled.get("cascade", {}).get("base", []), compiled.get("step", {})
    yield Goal(
        "TPU bytes, cascade forward, fused, over one read and write",
        1.3,
        1.05,
        [row["pallas forward"]["over_read_and_write"] for row in maps],
        True,
    )
    yield Goal(
        f"TPU bytes, cascade {_BOTH}, fused, over lax",
        0.68,
        0.4,
        [row["pallas forward_backward"]["over_lax"] for row in maps],
        True,
    )
    accessed = {name: step["bytes_accessed_mb"] for name, step in steps.items()}
    over_lax = [accessed["pallas"] / accessed["xla"]] if {"pallas", "xla"} <= set(accessed) else []
    yield Goal("TPU bytes, train step of base, over all-lax", 0.95, 0.7, over_lax, True)


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
    """Return PyTorch's best: of both memory formats and, in inference, folded or not."""
    formats = [name for name in seconds if name.startswith("torch ")]
    return min((seconds[name] for name in formats), default=None)


def _our_best(seconds: _Seconds) -> float:
    """Return our best in float32: in inference folded or not, as on the other side."""
    return min(seconds[name] for name in (model.OURS, model.FOLDED) if name in seconds)
