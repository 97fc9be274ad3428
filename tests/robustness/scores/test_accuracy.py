"""Accuracy over all logits, a subset's and sets of labels."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from lska_jax.robustness.scores import accuracy as acc
from lska_jax.tasks import accuracy as metrics

# The labels have the largest logit of classes 1 and 3 in the first row alone, of all in neither.
LOGITS = np.asarray([[9.0, 1.0, 8.0, 0.0], [0.0, 5.0, 9.0, 1.0]])
LABELS = np.asarray([1, 3])
SUBSET = np.asarray([1, 3])


def test_accuracy_is_the_share_of_right_images():
    assert acc.accuracy(np.asarray([1, 0, 1, 1])) == 0.75


def test_a_label_is_right_among_the_k_largest_logits():
    # Ranks 3 and 3 of four.
    assert acc.top_k_correct(LOGITS, LABELS, k=2).tolist() == [False, False]
    assert acc.top_k_correct(LOGITS, LABELS, k=3).tolist() == [True, True]


def test_the_rule_is_that_of_training_with_ties_and_broken_logits():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, 9)).astype(np.float32)
    logits[3, 2], logits[7, 0] = np.nan, np.inf
    labels = rng.integers(0, 9, 200)
    sums = metrics.eval_sums(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(200, bool))
    assert acc.top_k_correct(logits, labels, k=1).sum() == sums.top1
    assert acc.top_k_correct(logits, labels, k=5).sum() == sums.top5


def test_with_a_subsets_logits_only_its_classes_compete():
    assert acc.subset_correct(LOGITS, LABELS, SUBSET).tolist() == [True, False]
    assert acc.subset_correct(LOGITS, LABELS, SUBSET, k=2).tolist() == [True, True]
    assert acc.subset_correct(LOGITS, LABELS, SUBSET[::-1]).tolist() == [True, False]


def test_the_clean_control_takes_images_of_the_subsets_classes():
    logits = np.concatenate([LOGITS, [[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 9.0, 0.0]]])
    labels = np.asarray([1, 3, 1, 2])
    # Of the three images of classes 1 and 3: right, wrong, right; with all logits only the third.
    assert acc.is_in_classes(labels, SUBSET).tolist() == [True, True, True, False]
    assert acc.clean_control_accuracy(logits, labels, SUBSET) == pytest.approx(2 / 3)
    control = acc.clean_control_accuracy(logits, labels, SUBSET, use_all_logits=True)
    assert control == pytest.approx(1 / 3)


def test_a_clean_set_without_the_subsets_classes_has_no_control():
    assert acc.clean_control_accuracy(LOGITS, np.asarray([0, 2]), SUBSET) is None


def test_real_accuracy_drops_images_without_labels():
    predictions = np.asarray([1, 2, 3, 4])
    sets = [[5, 1], [3], [], [4]]
    assert acc.in_set_correct(predictions, sets).tolist() == [True, False, True]
    assert acc.in_set_accuracy(predictions, sets) == pytest.approx(2 / 3)


def test_real_accuracy_is_undefined_where_no_image_has_labels():
    assert acc.in_set_accuracy(np.asarray([1, 2]), [[], []]) is None


def test_a_perfect_and_a_constant_model():
    labels = np.arange(40) % 4
    perfect = np.eye(4)[labels]
    constant = np.tile([0.0, 0.0, 1.0, 0.0], (40, 1))
    assert acc.accuracy(acc.top_k_correct(perfect, labels, k=1)) == 1
    assert acc.accuracy(acc.top_k_correct(constant, labels, k=1)) == 0.25
    assert acc.in_set_accuracy(labels, [[label] for label in labels.tolist()]) == 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 4)), [], "No images"),
        (LOGITS, [1], "Lengths differ"),
        (LOGITS, [1, 4], "labels holds 4, which is outside the label set 0 to 3"),
        (LOGITS, [1, -1], "labels holds -1"),
        (LOGITS[0], [1], r"\(images, classes\)"),
    ],
)
def test_labels_outside_the_logits_are_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(acc.top_k_correct)(logits, np.asarray(labels, int), k=1)


def test_a_label_outside_the_subset_is_refused():
    with pytest.raises(ValueError, match=r"labels holds 2.*2 classes of the subset.*is_in_classes"):
        acc.subset_correct(LOGITS, np.asarray([1, 2]), SUBSET)
    with pytest.raises(ValueError, match="a class twice"):
        acc.subset_correct(LOGITS, LABELS, np.asarray([1, 3, 3]))
    with pytest.raises(ValueError, match="k=5: top-k of 4"):
        acc.top_k_correct(LOGITS, LABELS, k=5)


def test_real_labels_outside_imagenet_are_refused():
    with pytest.raises(ValueError, match="Lengths differ"):
        acc.in_set_correct(np.asarray([1, 2]), [[1]])
    with pytest.raises(ValueError, match="label_sets holds 1000"):
        acc.in_set_correct(np.asarray([1]), [[1000]])
    with pytest.raises(ValueError, match="predictions holds -1"):
        acc.in_set_correct(np.asarray([-1]), [[1]])


def test_outcomes_are_right_or_wrong():
    with pytest.raises(ValueError, match="holds 7: only 1"):
        acc.accuracy(np.asarray([1, 7]))
    with pytest.raises(ValueError, match="No images"):
        acc.accuracy(np.asarray([], bool))
