"""The table of scores, from which a report takes names and definitions."""

import pytest

from lska_jax.robustness.scores import SCORES, score_facts
from lska_jax.robustness.scores.corruption_error import corruption_scores
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS, SEVERITIES


@pytest.mark.parametrize("name", SCORES)
def test_a_score_says_in_one_sentence_what_it_is_and_who_defined_it(name):
    facts = SCORES[name]
    assert facts.name == name
    assert facts.definition.endswith(".")
    assert facts.definition.count(". ") == 0
    assert facts.source


def test_no_two_scores_share_a_label():
    assert len({facts.label for facts in SCORES.values()}) == len(SCORES)


def test_the_way_that_is_better_has_an_arrow():
    arrows = {name: SCORES[name].arrow for name in ("top1", "mce_15", "shape_bias")}
    assert arrows == {"top1": "↑", "mce_15": "↓", "shape_bias": ""}


def test_fractions_and_ratios_are_printed_in_percent():
    assert SCORES["top1"].is_percent
    assert SCORES["mce_15"].is_percent
    assert not SCORES["nll"].is_percent


def test_every_key_of_imagenet_c_has_facts():
    errors = {(name, s): 0.5 for name in ALL_CORRUPTIONS for s in SEVERITIES}
    for key in corruption_scores(errors, clean_error=0.2):
        assert score_facts(key).name == key.partition("/")[0]


def test_an_unknown_score_is_refused():
    with pytest.raises(ValueError, match="no score 'mce_16'.*mce_15"):
        score_facts("mce_16")
