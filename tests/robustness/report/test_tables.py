"""Tables of the report: exact texts, holes, data of different origin, hostile names."""

import csv
import io
import json
import re

import numpy as np
import pytest
from summaries import (
    PREPROCESSING,
    WHERE,
    corruption_scores,
    full_summary,
    holed_summary,
    stamped,
    summary,
)

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.report import (
    corruption_grid,
    latex,
    markdown,
    paper_grid,
    results_csv,
    results_json,
    set_grid,
    terminal_table,
)
from lska_jax.robustness.report.names import grouped_parts, parse_key
from lska_jax.robustness.scores import SCORES, score_facts
from lska_jax.robustness.sets.catalogue import set_cells

TWO = (
    summary("lska", {"imagenet/top1": 0.751, "imagenet_c/mce_15": 0.609, "imagenet/nll": 1.02}),
    summary("lka", {"imagenet/top1": 0.754, "imagenet_c/mce_15": 0.554}),
)
HOSTILE = "<script>alert(1)</script> 50% $x_1$ & {a} | #~^\\"


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_the_terminal_table_is_this_text():
    assert terminal_table(TWO) == (
        "score                                              lska                lka\n"
        "--------------------------------------------------------------------------\n"
        "ImageNet (official)\n"
        " top-1 ↑                              75.1 [74.1, 76.1]  75.4 [74.4, 76.4]\n"
        " negative log-likelihood (nats) ↓  1.020 [1.010, 1.030]                  –\n"
        "ImageNet-C (official)\n"
        " mCE (15) ↓                           60.9 [59.9, 61.9]  55.4 [54.4, 56.4]\n"
        "\n"
        "In % unless a unit is named, with 95 % bootstrap intervals over images.\n"
        "official (o): the official files.\n"
        "–: not in the results, for example because the suite does not have it\n"
    )


def test_ten_models_with_long_names_fit_100_columns():
    models = [full_summary(f"a_model_with_a_very_long_name_{i}", 0.7) for i in range(10)]
    lines = terminal_table(models).splitlines()
    assert max(map(len, lines)) <= 100
    # Three beside each other, so four blocks, and every model has a column that tells it apart.
    assert sum(line.startswith("score") for line in lines) == 4
    heads = " ".join(line for line in lines if line.startswith("score"))
    assert all(f"name_{i}" in heads for i in range(10))


def test_a_mean_over_an_incomplete_set_is_called_missing_and_explained():
    text = terminal_table([holed_summary("lska")])
    for score in ("mce_15", "mce_19", "mean_error"):
        label = f"{score_facts(score).label} ↓"
        assert re.search(rf"^ {re.escape(label)} +missing$", text, re.MULTILINE)
    assert f"missing ImageNet-C: frost (1-5): {WHERE}" in text


def test_a_set_that_is_missing_as_a_whole_has_a_row():
    text = terminal_table([summary("lska", {}, holes={Cell("imagenet_a"): "not there"})])
    assert re.search(r"^ImageNet-A\n top-1 \(200 logits\) ↑ +missing$", text, re.MULTILINE)


def test_a_set_that_nobody_knows_has_a_row_too():
    text = terminal_table([summary("lska", {}, holes={Cell("my_set"): "not there"})])
    assert re.search(r"^my-set\n all scores +missing$", text, re.MULTILINE)


def test_holes_that_only_some_models_have_name_them():
    text = terminal_table([full_summary("whole", 0.7), holed_summary("holed")])
    assert "missing ImageNet-C: frost (1-5) (for holed)" in text


def test_many_missing_cells_of_one_reason_are_counted():
    holes = {cell: WHERE for cell in set_cells("imagenet_c")}
    text = terminal_table([summary("lska", {}, holes=holes)])
    assert f"missing ImageNet-C: 95 cells of 19 parts: {WHERE}" in " ".join(text.split())


def test_many_reasons_are_cut_short_and_counted():
    holes = {Cell("imagenet_c", "fog", s): f"reason {s}" for s in range(1, 6)}
    holes |= {Cell("imagenet_c", "snow", s): f"other {s}" for s in range(1, 6)}
    holes |= {Cell("imagenet_c", "frost", s): f"third {s}" for s in range(1, 6)}
    text = terminal_table([summary("lska", {}, holes=holes)])
    assert "and 3 more reasons, all of them in results.json" in text


def test_a_score_that_is_not_defined_is_no_number():
    text = terminal_table([summary("lska", {"cue_conflict/shape_bias": stamped(None)})])
    assert re.search(r"^ shape bias +n/a$", text, re.MULTILINE)
    assert "n/a: the score is not defined" in text


def test_notes_are_numbered_footnotes():
    noted = stamped(0.5, note="3 images unreadable")
    text = terminal_table([summary("lska", {"imagenet/top1": noted, "imagenet_a/top1": noted})])
    assert text.count("50.0 [49.0, 51.0] (1)") == 2
    assert text.count("(1) 3 images unreadable") == 1


def test_data_of_different_origin_are_marked_in_the_terminal():
    generated = {"imagenet_c/mce_15": stamped(0.5, provenance="generated")}
    text = terminal_table([TWO[0], summary("other", generated)])
    assert "60.9 [59.9, 61.9] (o)" in text
    assert "50.0 [49.0, 51.0] (g)" in text
    assert "do not compare them" in " ".join(text.split())


def test_no_number_is_the_best_where_data_are_of_different_origin():
    models = [
        summary("a", {"imagenet_c/mce_15": 0.6, "imagenet/top1": 0.7}),
        summary(
            "b",
            {"imagenet_c/mce_15": stamped(0.5, provenance="tfds"), "imagenet/top1": 0.8},
        ),
    ]
    text = markdown(paper_grid(models))
    assert "| a | 70.0 | 60.0 |" in text
    assert "| b | **80.0** | 50.0<sup>t</sup> |" in text
    assert "numbers of one column that are marked differently rest on different data" in text


def test_control_sequences_in_a_name_do_not_reach_the_terminal():
    text = terminal_table([summary("a\x1b[31m\nb", {"imagenet/top1": 0.5})])
    assert "\x1b" not in text
    assert "a?[31m?b" in text


def test_the_markdown_table_in_the_papers_form_is_this_text():
    assert markdown(paper_grid(TWO)) == (
        "**Robustness in the paper's form, in %**\n"
        "\n"
        "| Model | ImageNet top-1 ↑ | ImageNet-C mCE (15) ↓ |\n"
        "| --- | ---: | ---: |\n"
        "| lska | 75.1 | 60.9 |\n"
        "| lka | **75.4** | **55.4** |\n"
    )


def test_the_latex_table_in_the_papers_form_is_this_text():
    assert latex(paper_grid(TWO)) == "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            r"\caption{Robustness in the paper's form, in \%}",
            r"\label{tab:paper}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"& \multicolumn{1}{c}{ImageNet} & \multicolumn{1}{c}{ImageNet-C} \\",
            r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}",
            r"Model & top-1 $\uparrow$ & mCE (15) $\downarrow$ \\",
            r"\midrule",
            r"lska & 75.1 & 60.9 \\",
            r"lka & \textbf{75.4} & \textbf{55.4} \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def test_the_table_by_corruption_has_the_papers_groups_and_all_columns():
    grid = corruption_grid([full_summary("a", 0.7)], "imagenet_c", "ce")
    assert grid.groups == (
        ("Mean", 2),
        ("Noise", 3),
        ("Blur", 4),
        ("Weather", 4),
        ("Digital", 4),
        ("Extra", 4),
    )
    assert [column.label for column in grid.columns[:6]] == [
        "mCE (15)",
        "mCE (19)",
        "Gauss.",
        "Shot",
        "Impulse",
        "Defocus",
    ]
    text = latex(grid)
    assert r"\begin{tabular}{l" + "r" * 21 + "}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-6} \cmidrule(lr){7-10}" in text


def test_the_table_by_corruption_shows_the_hole_and_no_mean():
    (_, entries), *_ = corruption_grid([holed_summary("a")], "imagenet_c", "ce").rows
    grid = corruption_grid([holed_summary("a")], "imagenet_c", "ce")
    texts = {c.label: e.text for c, e in zip(grid.columns, entries, strict=True)}
    assert texts["mCE (15)"] == texts["mCE (19)"] == texts["Frost"] == "missing"
    # The others are what they are: 1 - 0.7 + 0.2 over 0.8.
    assert texts["Fog"] == "62.5"


def test_a_table_by_corruption_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"No model has 'ce' for the parts of 'cifar10_c'"):
        corruption_grid(TWO, "cifar10_c", "ce")


def test_corruptions_of_no_group_stand_together_and_untitled_if_alone():
    assert grouped_parts(["sparkles", "fog", "snow"]) == [
        ("Weather", ["snow", "fog"]),
        ("Other", ["sparkles"]),
    ]
    assert grouped_parts(["sparkles", "waves"]) == [("", ["sparkles", "waves"])]


def test_a_set_outside_imagenet_has_its_columns_in_the_papers_form():
    scores = {"cifar10/top1": 0.9, "cifar10_c/mean_error": stamped(0.3, provenance="generated")}
    text = markdown(paper_grid([summary("a", scores)]))
    assert "| Model | CIFAR-10 top-1 ↑ | CIFAR-10-C mean error ↓ |" in text
    assert "| a | 90.0 | 30.0<sup>g</sup> |" in text


def test_the_variants_of_a_set_are_columns_of_its_table():
    scores = {"imagenet_v2/top1/top-images": 0.7, "imagenet_v2/top1/threshold-0.7": 0.6}
    grid = set_grid([summary("a", scores)], "imagenet_v2")
    assert [column.label for column in grid.columns] == [
        "top-1 top-images",
        "top-1 threshold-0.7",
    ]


def test_scores_of_variants_other_than_top1_stay_out_of_the_summary_table():
    scores = {"imagenet_v2/top1/top-images": 0.7, "imagenet_v2/nll/top-images": 1.5}
    text = terminal_table([summary("a", scores)])
    assert "top-images top-1 ↑" in text
    assert "likelihood" not in text


def test_the_best_of_a_column_may_be_several_and_needs_two():
    same = [summary(name, {"imagenet/top1": value}) for name, value in (("a", 0.70004), ("b", 0.7))]
    assert markdown(paper_grid(same)).count("**70.0**") == 2
    assert "**70.0**" not in markdown(paper_grid(same[:1]))


def test_hostile_names_are_escaped_in_markdown():
    text = markdown(paper_grid([summary(HOSTILE, {"imagenet/top1": 0.5})]))
    (row,) = (line for line in text.splitlines() if "script" in line)
    assert "<script" not in row
    assert row.startswith(r"| &lt;script&gt;alert(1)&lt;/script&gt; 50% $x\_1$ &amp; {a} \| \#")
    # Two columns: nothing of the name opened a third.
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_hostile_names_are_escaped_in_latex():
    text = latex(paper_grid([summary(HOSTILE, {"imagenet/top1": 0.5})]))
    (row,) = (line for line in text.splitlines() if "script" in line)
    assert row == (
        r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{} 50\% \$x\_1\$ "
        r"\& \{a\} \textbar{} \#\textasciitilde{}\textasciicircum{}\textbackslash{} & 50.0 \\"
    )


def test_latex_braces_and_environments_are_balanced():
    for grid in (
        paper_grid([holed_summary(HOSTILE)]),
        corruption_grid([holed_summary(HOSTILE)], "imagenet_c", "ce"),
    ):
        text = latex(grid)
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")
        begun = re.findall(r"\\begin{(.*?)}", text)
        assert begun == list(reversed(re.findall(r"\\end{(.*?)}", text)))
        cells = {
            len(re.findall(r"(?<!\\)&", line))
            for line in text.splitlines()
            if line.endswith(r"\\") and "multicolumn" not in line
        }
        assert cells == {len(grid.columns)}


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
            "comes from 'found': only official, tfds, generated are known",
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


def test_scores_of_single_cells_stay_out_of_the_summary_table():
    text = terminal_table([summary("a", corruption_scores("imagenet_c", 0.5))])
    assert "fog" not in text
