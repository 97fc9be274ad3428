"""What the catalogue knows, and the names of suites."""

import pytest

from lska_jax.robustness.cells import Cell
from lska_jax.robustness.sets.catalogue import SETS, find_set, parse_suite, set_cells


@pytest.mark.parametrize(
    ("name", "count"),
    [("imagenet", 1), ("imagenet_c", 95), ("imagenet_c_bar", 50), ("imagenet_v2", 3)]
    + [("imagenet_p", 10), ("imagenet_a", 1), ("cue_conflict", 1)],
)
def test_every_set_has_its_cells(name, count):
    cells = set_cells(name)
    assert len(set(cells)) == len(cells) == count
    assert all(cell.set == name for cell in cells)


@pytest.mark.parametrize("name", SETS)
def test_every_set_says_where_it_comes_from(name):
    image_set = find_set(name)
    assert image_set.name == name and image_set.where.startswith("https://")
    assert image_set.citation and image_set.layout and image_set.label_space
    assert image_set.tfds is None or image_set.tfds.trap


def test_the_paper_suite_is_its_five_sets_and_the_clean_control():
    names = ("imagenet", "imagenet_c", "imagenet_c_bar", "imagenet_a", "imagenet_r")
    cells = parse_suite("paper")
    assert list(dict.fromkeys(cell.set for cell in cells)) == [*names, "imagenet_sketch"]
    assert len(cells) == 1 + 95 + 50 + 3


def test_the_full_suite_is_every_cell_once():
    cells = parse_suite("full")
    assert set(cells) == {cell for name in SETS for cell in set_cells(name)}
    assert len(set(cells)) == len(cells)


def test_the_smoke_suite_asks_for_the_clean_set_and_one_corruption():
    assert parse_suite("smoke") == (
        Cell("imagenet"),
        *(Cell("imagenet_c", "contrast", severity) for severity in (1, 3, 5)),
    )


def test_a_list_keeps_its_order_and_counts_a_cell_once():
    cells = parse_suite("imagenet_r, imagenet_a,imagenet_c/fog/3 ,imagenet_r,imagenet_c/fog")
    assert cells[:3] == (Cell("imagenet_r"), Cell("imagenet_a"), Cell("imagenet_c", "fog", 3))
    assert sorted(cell.severity for cell in cells[2:]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cell", parse_suite("full"), ids=str)
def test_the_name_of_a_cell_finds_it_again(cell):
    assert parse_suite(str(cell)) == (cell,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagent_r", "no suite or image set 'imagent_r'. Did you mean imagenet_r"),
        ("papers", "Did you mean paper"),
        ("imagenet_c/fogg", "no part of imagenet_c 'fogg'. Did you mean fog"),
        ("imagenet_c/fog/6", "no severity of imagenet_c '6'.* 1, 2, 3, 4, 5"),
        ("imagenet_c/fog/high", "write SET, SET/PART or SET/PART/SEVERITY"),
        ("imagenet_a/fog", "no part of imagenet_a 'fog': it has none"),
        (" , ", "names nothing; give paper, full, smoke"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_what_is(text, message):
    with pytest.raises(ValueError, match=message):
        parse_suite(text)


def test_an_unknown_set_has_no_cells():
    with pytest.raises(ValueError, match="no image set 'cifar10'"):
        set_cells("cifar10")


@pytest.mark.parametrize("suite", ["paper", "full", "smoke"])
def test_every_cell_of_a_suite_belongs_to_the_catalogue(suite):
    for cell in parse_suite(suite):
        image_set = SETS[cell.set]
        assert cell.part in image_set.parts and cell.severity in image_set.severities
