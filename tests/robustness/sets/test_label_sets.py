"""The classes of the robustness sets, against the published lists."""

import hashlib

import numpy as np
import pytest

from lska_jax.robustness.sets import label_sets

# SHA-256 of the WordNet ids of each published list, one a line, in label order.
PUBLISHED = {
    "imagenet_a": "f6aa4b23244554d9b864fd715ae20048f6a9686388911b2dfbf1ada01bf0f520",
    "imagenet_r": "e19a59d84e3746fafd34d2ccf6ae604a44e9a0500a596f343c878a89e30ce624",
    "imagenet_o": "39f8e64e8f89efad8fd9615c061abc61695ffbd27793e87199181cb4fb340083",
}
PUBLISHED_SHAPES = "d995273514b40804a17b5149431113f0cf9ecf16672094f02a48f6060b117b15"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_subset_names_the_published_classes_in_label_order(name):
    classes = label_sets.subset_classes(name)
    wnids = [label_sets.imagenet_wnids()[label] for label in classes]
    assert classes.shape == (200,)
    assert (np.diff(classes) > 0).all()
    assert hashlib.sha256("\n".join(wnids).encode()).hexdigest() == PUBLISHED[name]


def test_the_sixteen_shape_classes_are_the_published_ones_in_alphabetical_order():
    groups = label_sets.shape_classes()
    wnids = label_sets.imagenet_wnids()
    lines = [f"{name} {wnids[label]}" for name, labels in groups.items() for label in labels]
    assert list(groups) == sorted(groups)
    assert len(groups) == 16
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED_SHAPES


def test_no_imagenet_class_stands_for_two_shapes():
    labels = np.concatenate(list(label_sets.shape_classes().values()))
    assert np.unique(labels).size == labels.size == 207


def test_a_caller_cannot_change_the_lists():
    label_sets.subset_classes("imagenet_a")[:] = 0
    assert label_sets.subset_classes("imagenet_a")[0] == 6


def test_a_set_of_all_classes_has_no_list():
    with pytest.raises(ValueError, match="'imagenet_sketch'.*imagenet_a.*all 1000"):
        label_sets.subset_classes("imagenet_sketch")
