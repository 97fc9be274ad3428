"""Results for programs: every number and hole as CSV and JSON; what is refused."""

import csv
import io
import json
import re

import numpy as np
import pytest
from summaries import (
    PREPROCESSING,
    TWO,
    WHERE,
    stamped,
    summary,
)

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.report import (
    results_csv,
    results_json,
    terminal_table,
)
from lska_jax.robustness.report.names import parse_key
from lska_jax.robustness.scores import SCORES

HOSTILE = "<script>alert(1)</script> 50% $x_1$ & {a} | #~^\\"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_csv_has_every_number_and_hole_with_its_stamps():
    model = summary(
        "lska",
        {"imagenet_c/error/fog/3": stamped(0.25, provenance="generated", note="a note")},
        holes={Cell("imagenet_c", "snow", 2): WHERE},
    )
    number, hole = rows_of(results_csv([model]))
    facts = SCORES["error"]
    assert number == {
        "model": "lska",
        "sha256": "ab" * 32,
        "key": "imagenet_c/error/fog/3",
        "set": "imagenet_c",
        "score": "error",
        "part": "fog",
        "severity": "3",
        "value": "0.25",
        "low": "0.24",
        "high": "0.26",
        "unit": facts.unit,
        "higher_is_better": "False",
        "provenance": "generated",
        "preprocessing": PREPROCESSING,
        "num_images": "50000",
        "note": "a note",
        "missing": "",
        "definition": facts.definition,
        "source": facts.source,
    }
    assert (hole["set"], hole["part"], hole["severity"]) == ("imagenet_c", "snow", "2")
    assert (hole["value"], hole["missing"]) == ("", WHERE)


@pytest.mark.parametrize("name", ['=HYPERLINK("http://a")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_spreadsheet_runs_a_name_from_the_csv(name):
    (row,) = rows_of(results_csv([summary(name, {"imagenet/top1": 0.5})]))
    assert row["model"] == f"'{name}".replace("\r", " ")


def test_a_negative_number_stays_a_number_in_the_csv():
    (row,) = rows_of(results_csv([summary("a", {"imagenet_c/relative_mce_15": -0.25})]))
    assert float(row["value"]) == -0.25


def test_the_json_has_every_number_and_hole_with_its_stamps():
    model = summary(
        "lska", {"imagenet/top1": stamped(0.75)}, holes={Cell("imagenet_a"): WHERE}, k=23
    )
    content = json.loads(results_json([model], conditions={"suite": "smoke"}))
    assert content["conditions"] == {"suite": "smoke"}
    assert content["definitions"]["top1"]["definition"] == SCORES["top1"].definition
    assert content["models"] == [
        {
            "name": "lska",
            "sha256": "ab" * 32,
            "preprocessing": PREPROCESSING,
            "facts": {"k": 23},
            "scores": {
                "imagenet/top1": {
                    "value": 0.75,
                    "low": 0.74,
                    "high": 0.76,
                    "provenance": "official",
                    "preprocessing": PREPROCESSING,
                    "num_images": 50_000,
                    "note": "",
                }
            },
            "holes": [{"set": "imagenet_a", "part": "", "severity": 0, "reason": WHERE}],
        }
    ]


def test_facts_of_a_model_may_be_anything_and_the_json_stays_json():
    model = summary("a", {}, k=np.int64(7), loss=float("nan"), of={"a": 1}, ema=True, hub=None)
    content = json.loads(results_json([model]), parse_constant=pytest.fail)
    facts = {"k": "7", "loss": "nan", "of": "{'a': 1}", "ema": True, "hub": None}
    assert content["models"][0]["facts"] == facts


@pytest.mark.parametrize("write", [terminal_table, results_csv, results_json])
@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "No models"),
        ([TWO[0], TWO[0]], "Two models are called 'lska'"),
        ([summary("a", {"imagenet": 0.5})], "'imagenet' is no key of a score"),
        ([summary("a", {"imagenet/top7": 0.5})], "There is no score 'top7'"),
        ([summary("a", {"imagenet/top1": float("nan")})], "a score is a finite number or None"),
        (
            [summary("a", {"imagenet/top1": stamped(0.5, provenance="found")})],
            "comes from 'found': only official, tfds, generated, own are known",
        ),
    ],
)
def test_summaries_that_make_no_sense_are_refused(write, models, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write(models)


@pytest.mark.parametrize("key", ["a", "a/", "a/b/c/6", "a/b/c/0", "a/b//3", "a/b/c/3/d", "a/b/c/x"])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(ValueError, match="is no key of a score"):
        parse_key(key)


@pytest.mark.parametrize("key", ["a/b", "a/b/c", "a/b/c/5"])
def test_a_key_taken_apart_and_put_together_is_the_same(key):
    assert str(parse_key(key)) == key
