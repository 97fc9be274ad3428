"""Two lists of class names: the same, in another order, or others."""

import pickle

import pytest

from lska_jax.data.sources import Record
from lska_jax.tasks.class_order import (
    RelabelledSource,
    describe_difference,
    in_order,
    positions_in,
    same_order,
)
from lska_jax.weights.class_names import imagenet_names, imagenet_wnids


class Letters:
    """Three examples, one of each class."""

    name = "letters"

    def __init__(self, *class_names: str):
        self.class_names = class_names

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Record:
        return Record(self.class_names[index].encode(), index)

    def path(self, index: int) -> str:
        return f"letters#{index}"


def test_the_same_names_need_no_view():
    source = Letters("a", "b", "c")
    assert in_order(source, ("a", "b", "c"), whose="the run") is source


@pytest.mark.parametrize("order", ["abc", "acb", "bca", "cba"])
def test_in_another_order_every_example_keeps_its_class(order):
    source = in_order(Letters("a", "b", "c"), tuple(order), whose="the run")
    read = pickle.loads(pickle.dumps(source))
    assert [order[read[index].label] for index in range(3)] == ["a", "b", "c"]
    assert tuple(read.class_names) == tuple(order)
    assert (len(read), read.path(1), read.name) == (3, "letters#1", "letters")


def test_other_names_are_refused_with_both_lists():
    with pytest.raises(ValueError) as caught:
        in_order(Letters("b", "c", "z"), ("a", "b", "c"), whose="the run")
    message = str(caught.value)
    assert "the run has 3 classes (a, b, c), letters has 3 (b, c, z)" in message
    assert "only in letters: z; only in the run: a" in message


def test_imagenets_ids_and_words_are_the_same_classes():
    assert same_order(imagenet_wnids(), imagenet_names())
    assert positions_in(imagenet_wnids()[::-1], imagenet_names()) == [*range(999, -1, -1)]


def test_a_letter_with_an_accent_is_the_same_however_it_is_written():
    assert same_order(["\u00e9clair"], ["e\u0301clair"])


def test_names_that_stand_twice_have_no_order():
    assert positions_in(["a", "a"], ["a", "a"]) is None


def test_long_lists_are_shortened_and_their_difference_is_not_lost():
    names = [f"class {number}" for number in range(100)]
    told = describe_difference(names, [*names[:-1], "odd"], what="data", other_what="run")
    assert "and 80 more" in told and "only in data: class 99; only in run: odd" in told


def test_a_view_is_named_as_its_source():
    assert RelabelledSource(Letters("a", "b", "c"), [0, 1, 2], ("x", "y", "z")).name == "letters"
