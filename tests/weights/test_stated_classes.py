"""Classes that checkpoints of mmdetection and mmsegmentation name beside their weights."""

import pytest

from lska_jax.weights.class_names import StatedClasses, read_stated_classes


def test_names_and_colours_are_those_of_the_meta():
    meta = {"epoch": 12, "CLASSES": ("wall", "sky "), "PALETTE": [[120, 120, 120], (6, 230, 230)]}
    stated = read_stated_classes({"meta": meta, "state_dict": {}})
    assert stated == StatedClasses(("wall", "sky"), ((120, 120, 120), (6, 230, 230)))


@pytest.mark.parametrize(
    "palette", [None, [[1, 2, 3]], [[1, 2, 3], [1, 2, 256]], [[1, 2, 3], [1, 2]], "no", [1, 2]]
)
def test_colours_that_are_not_one_for_each_class_are_not_taken(palette):
    stated = read_stated_classes({"meta": {"CLASSES": ["wall", "sky"], "PALETTE": palette}})
    assert stated == StatedClasses(("wall", "sky"), None)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"meta": None},
        {"meta": {"CLASSES": None}},
        {"meta": {"CLASSES": "wall"}},
        {"meta": {"CLASSES": []}},
        {"meta": {"CLASSES": ["wall", 3]}},
        [],
    ],
)
def test_what_names_no_classes_states_none(content):
    assert read_stated_classes(content) == StatedClasses()
