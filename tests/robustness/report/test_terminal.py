"""The summary table of the terminal: exact text, holes, data of different origin."""

import re

from summaries import (
    TWO,
    WHERE,
    corruption_scores,
    full_summary,
    holed_summary,
    stamped,
    summary,
)

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.report import (
    markdown,
    paper_grid,
    terminal_table,
)
from lska_jax.robustness.scores import score_facts
from lska_jax.robustness.sets.catalogue import set_cells


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
        "In % unless a unit is named, with 95 % bootstrap intervals over images where known.\n"
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


def test_scores_of_variants_other_than_top1_stay_out_of_the_summary_table():
    scores = {"imagenet_v2/top1/top-images": 0.7, "imagenet_v2/nll/top-images": 1.5}
    text = terminal_table([summary("a", scores)])
    assert "top-images top-1 ↑" in text
    assert "likelihood" not in text


def test_scores_of_single_cells_stay_out_of_the_summary_table():
    text = terminal_table([summary("a", corruption_scores("imagenet_c", 0.5))])
    assert "fog" not in text
