"""The catalogue as people read it."""

import subprocess
import sys
from pathlib import Path

import pytest

from lska_jax.robustness.sets.catalogue import SETS
from lska_jax.robustness.sets.listing import describe_all, describe_set, markdown_table

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_about_the_sets_shows_the_catalogue():
    assert markdown_table() in (DOCS / "robustness_sets.md").read_text()


@pytest.mark.parametrize("name", SETS)
def test_every_fact_of_a_set_is_printed(name):
    printed = describe_set(name)
    facts = SETS[name]
    trap = facts.tfds.trap if facts.tfds else ""
    for text in (facts.title, facts.where, facts.layout, facts.citation, trap, facts.note):
        assert text in printed
    assert f"({facts.size})" in printed


def test_all_sets_are_printed_together():
    suites, *sets = describe_all().split("\n\n")
    assert sets == [describe_set(name) for name in SETS]
    assert "suite paper: imagenet, imagenet_c, imagenet_c_bar" in suites


def test_an_unknown_set_is_an_error_with_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean imagenet_"):
        describe_set("imagenet_s")


def test_listing_and_opening_sets_needs_neither_jax_nor_tensorflow():
    code = (
        "import sys, lska_jax.robustness.sets.listing, lska_jax.robustness.sets.opening\n"
        "print({'jax', 'flax', 'tensorflow', 'tensorflow_datasets'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DOCS.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
