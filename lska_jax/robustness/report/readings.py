"""What a summary says of a score: a number, or why there is none."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from lska_jax.robustness.cells import PROVENANCES, Cell, Score, StampedScore, Summary
from lska_jax.robustness.report.names import Key, in_set_order, parse_key
from lska_jax.robustness.scores import ScoreFacts, score_facts
from lska_jax.robustness.scores.dense_scorer import DENSE_METRICS
from lska_jax.robustness.sets.catalogue import SETS, find_scorer

State = Literal["measured", "undefined", "missing", "not measured"]

# What stands in a table instead of a number.
WORDS: dict[State, str] = {"undefined": "n/a", "missing": "missing", "not measured": "–"}
EXPLANATIONS: dict[State, str] = {
    "undefined": "n/a: the score is not defined for what was measured",
    "missing": "missing: no number, for the reason below; no mean is taken over what is there",
    "not measured": "–: not in the results, for example because the suite does not have it",
}
PROVENANCE_LETTERS = {"official": "o", "tfds": "t", "generated": "g", "own": "w"}
PROVENANCE_WORDS = {
    "official": "the official files",
    "tfds": "built by TFDS, whose images differ from the official ones",
    "generated": "generated here from clean images, not the official files",
    "own": "images of one's own, given with --clean",
}


class Reading(NamedTuple):
    """A score of one model, or why it is not there."""

    state: State
    stamped: StampedScore | None = None

    @property
    def score(self) -> Score | None:
        """Return the number if there is one."""
        return self.stamped.score if self.stamped and self.state == "measured" else None


def check_summaries(summaries: Sequence[Summary]) -> None:
    """Check that summaries can be reported.

    Raises:
      ValueError: none are given, two models share a name, a key or its score is unknown, a number
        is not finite, a provenance is unknown.
    """
    if not summaries:
        raise ValueError("No models: a report needs the summary of at least one.")
    names = [summary.model.name for summary in summaries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Two models are called {twice[0]!r}. Names tell the models of a report apart: give "
            "each results file once, and measure another model under another name, "
            "--model NAME=PLACE."
        )
    for summary in summaries:
        for key, stamped in summary.scores.items():
            score_facts(parse_key(key).score)
            if not all(math.isfinite(number) for number in stamped.score if number is not None):
                raise ValueError(
                    f"{key} of {summary.model.name} is {stamped.score}: a score is a finite number "
                    "or None."
                )
            if stamped.provenance not in PROVENANCES:
                raise ValueError(
                    f"{key} of {summary.model.name} comes from {stamped.provenance!r}: only "
                    f"{', '.join(PROVENANCES)} are known."
                )


def read(summary: Summary, key: Key) -> Reading:
    """Return what a summary says of a score."""
    stamped = summary.scores.get(str(key))
    if stamped is not None:
        return Reading("undefined" if stamped.score.value is None else "measured", stamped)
    is_hole = any(_concerns(hole.cell, key) for hole in summary.holes)
    return Reading("missing" if is_hole else "not measured")


def overview_keys(summaries: Sequence[Summary]) -> list[Key]:
    """Return the scores of the summary table: those of whole sets, also where all are missing."""
    keys: dict[Key, None] = {}
    for summary in summaries:
        for text in summary.scores:
            key = parse_key(text)
            if not key.part or _is_variant(key):
                keys[key] = None
        for hole in summary.holes:
            scorer = find_scorer(hole.cell.set)
            for score in scorer.headlines:
                part = hole.cell.part if scorer.is_by_part else ""
                keys[Key(hole.cell.set, score, part)] = None
    with_rows = {key.set for key in keys}
    # On one's own images too few parts for a mean each speak for themselves.
    own = [key for key in all_keys(summaries) if key.set not in {*SETS, *with_rows}]
    parts = [key for key in own if key.part and key.score in ("error", *DENSE_METRICS)]
    whole = {(key.set, key.part) for key in parts if not key.severity}
    for key in parts:
        if not key.severity or (key.set, key.part) not in whole:
            keys[key] = None
    with_rows = {key.set for key in keys}
    for summary in summaries:
        for hole in summary.holes:
            if hole.cell.set not in with_rows:
                keys[Key(hole.cell.set, "")] = None
    return [
        key for name in in_set_order(key.set for key in keys) for key in keys if key.set == name
    ]


def all_keys(summaries: Sequence[Summary]) -> list[Key]:
    """Return every key that any of the models has."""
    return list({parse_key(key): None for summary in summaries for key in summary.scores})


def all_sets(summaries: Sequence[Summary]) -> list[str]:
    """Return every set that any of the models has scores or holes of, in the report's order."""
    holes = [hole.cell.set for summary in summaries for hole in summary.holes]
    return in_set_order([*(key.set for key in all_keys(summaries)), *holes])


def parts_of(
    summaries: Sequence[Summary], set_name: str, score: str, *, by_severity: bool = False
) -> list[str]:
    """Return the parts of a set that any model has a score of, or a hole.

    Args:
      summaries: of the models.
      set_name: e.g. "imagenet_c".
      score: e.g. "error".
      by_severity: look for scores of single severities, not for those of a whole part.
    """
    keys = [key for key in all_keys(summaries) if (key.set, key.score) == (set_name, score)]
    parts = {key.part: None for key in keys if key.part and bool(key.severity) == by_severity}
    if parts:
        for summary in summaries:
            for hole in summary.holes:
                if hole.cell.set == set_name and hole.cell.part:
                    parts[hole.cell.part] = None
    return list(parts)


def best_of(readings: Iterable[Reading], facts: ScoreFacts) -> set[int]:
    """Return which of the readings are the best: none where they cannot be compared.

    They can be where at least two are numbers, all from images of one provenance, and one
    direction is better.
    """
    numbers = {i: one.stamped for i, one in enumerate(readings) if one.score and one.stamped}
    if len(numbers) < 2 or facts.is_higher_better is None or len(provenances(numbers.values())) > 1:
        return set()
    shown = {i: print_value(one.score, facts) for i, one in numbers.items()}
    sign = 1 if facts.is_higher_better else -1
    best = max(numbers, key=lambda i: sign * (numbers[i].score.value or 0.0))
    return {i for i in numbers if shown[i] == shown[best]}


def provenances(scores: Iterable[StampedScore | None]) -> list[str]:
    """Return the provenances of some scores, each once, in a fixed order."""
    found = {score.provenance for score in scores if score}
    return [name for name in PROVENANCES if name in found]


def print_value(score: Score, facts: ScoreFacts) -> str:
    """Return a score's value as it is printed, e.g. "76.3"."""
    return _number(score.value, facts)


def print_interval(score: Score, facts: ScoreFacts) -> str:
    """Return a score's interval as it is printed, e.g. "[75.1, 77.2]"; "" where it has none."""
    if score.low is None or score.high is None:
        return ""
    return f"[{_number(score.low, facts)}, {_number(score.high, facts)}]"


def _number(value: float | None, facts: ScoreFacts) -> str:
    if value is None:
        return WORDS["undefined"]
    text = f"{100 * value:.1f}" if facts.is_percent else f"{value:.3f}"
    # No "-0.0": the sign of a number that rounds to nothing says nothing.
    return text.lstrip("-") if float(text) == 0 else text


def _is_variant(key: Key) -> bool:
    """Tell whether a score of a part stands in the summary, as those of whole sets do."""
    scorer = find_scorer(key.set)
    return scorer.is_by_part and key.score in scorer.headlines and not key.severity


def _concerns(cell: Cell, key: Key) -> bool:
    return (
        cell.set == key.set
        and (not key.part or cell.part in ("", key.part))
        and (not key.severity or cell.severity in (0, key.severity))
    )
