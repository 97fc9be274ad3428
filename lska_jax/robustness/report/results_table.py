"""Everything that was measured, for programs: one CSV and one JSON file.

The CSV has one line for each score and model and one for each hole. A text that a spreadsheet would
run as a formula (it begins with =, +, -, @, a tab or a carriage return) gets a ' in front, as OWASP
advises (owasp.org/www-community/attacks/CSV_Injection), and line breaks become spaces; the JSON
file holds it as it is.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lska_jax
from lska_jax.robustness.cells import Summary
from lska_jax.robustness.report.names import Key, parse_key
from lska_jax.robustness.report.readings import check_summaries
from lska_jax.robustness.scores import score_facts

COLUMNS = (
    "model",
    "sha256",
    "key",
    "set",
    "score",
    "part",
    "severity",
    "value",
    "low",
    "high",
    "unit",
    "higher_is_better",
    "provenance",
    "preprocessing",
    "num_images",
    "note",
    "missing",
    "definition",
    "source",
)
# Counts up when a reader of the old files would misread the new ones.
FORMAT_VERSION = 1

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def results_csv(summaries: Sequence[Summary]) -> str:
    """Return all scores and holes as CSV; fractions, not percent.

    A hole has no value, and what is missing stands in the column "missing".

    Raises:
      ValueError: as ``readings.check_summaries``.
    """
    check_summaries(summaries)
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for summary in summaries:
        for row in _rows(summary):
            writer.writerow({name: guarded(value) for name, value in row.items()})
    return file.getvalue()


def results_json(
    summaries: Sequence[Summary], *, conditions: Mapping[str, str] | None = None
) -> str:
    """Return all scores, holes and models as JSON; fractions, not percent.

    Args:
      summaries: one for each model.
      conditions: what else is known of the sweep.

    Raises:
      ValueError: as ``readings.check_summaries``.
    """
    check_summaries(summaries)
    names = {parse_key(key).score for one in summaries for key in one.scores}
    content = {
        "format": "lska_jax robustness report",
        "version": FORMAT_VERSION,
        "lska_jax": lska_jax.__version__,
        "conditions": dict(conditions or {}),
        "definitions": {name: _definition(name) for name in sorted(names)},
        "models": [_model(summary) for summary in summaries],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def guarded(value: Any) -> Any:
    """Return a value for CSV that no spreadsheet runs as a formula, on one line."""
    if not isinstance(value, str):
        return value
    text = f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return text.replace("\r", " ").replace("\n", " ")


def _rows(summary: Summary) -> Iterator[dict[str, Any]]:
    model = {"model": summary.model.name, "sha256": summary.model.sha256}
    for text, stamped in summary.scores.items():
        key = parse_key(text)
        facts = score_facts(key.score)
        yield {
            **model,
            **_names(key),
            "value": _plain(stamped.score.value),
            "low": _plain(stamped.score.low),
            "high": _plain(stamped.score.high),
            "unit": facts.unit,
            "higher_is_better": facts.is_higher_better,
            "provenance": stamped.provenance,
            "preprocessing": stamped.preprocessing,
            "num_images": stamped.num_images,
            "note": stamped.note,
            "definition": facts.definition,
            "source": facts.source,
        }
    for hole in summary.holes:
        key = Key(hole.cell.set, "", hole.cell.part, hole.cell.severity)
        names = {**_names(key), "key": ""}
        yield {
            **model,
            **names,
            "preprocessing": summary.model.preprocessing,
            "missing": hole.reason,
        }


def _names(key: Key) -> dict[str, Any]:
    return {
        "key": str(key),
        "set": key.set,
        "score": key.score,
        "part": key.part,
        "severity": key.severity or "",
    }


def _model(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.model.name,
        "sha256": summary.model.sha256,
        "preprocessing": summary.model.preprocessing,
        "facts": {name: _fact(value) for name, value in summary.model.facts.items()},
        "scores": {
            key: {
                "value": _plain(stamped.score.value),
                "low": _plain(stamped.score.low),
                "high": _plain(stamped.score.high),
                "provenance": stamped.provenance,
                "preprocessing": stamped.preprocessing,
                "num_images": int(stamped.num_images),
                "note": stamped.note,
            }
            for key, stamped in summary.scores.items()
        },
        "holes": [
            {
                "set": hole.cell.set,
                "part": hole.cell.part,
                "severity": hole.cell.severity,
                "reason": hole.reason,
            }
            for hole in summary.holes
        ],
    }


def _definition(score: str) -> dict[str, Any]:
    facts = score_facts(score)
    return {
        "label": facts.label,
        "unit": facts.unit,
        "higher_is_better": facts.is_higher_better,
        "definition": facts.definition,
        "source": facts.source,
    }


def _fact(value: Any) -> Any:
    """Return a fact as it is if JSON has it, else as its text."""
    is_json = isinstance(value, str | int | None) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if is_json else str(value)


def _plain(value: float | None) -> float | None:
    """Return a Python number; NumPy's are no JSON."""
    return None if value is None else float(value)
