"""A cell's scores from known outcomes: numbers worked out by hand."""

import numpy as np
import pytest

from lska_jax.robustness.cells import Cell, Outcomes
from lska_jax.robustness.sets.catalogue import class_subsets, find_scorer
from lska_jax.robustness.sets.label_sets import subset_classes

SUBSETS = ("imagenet_a", "imagenet_r", "imagenet_o")


def outcomes(prediction, *, confidence=0.5, nll=1.0, top5=None, group=0) -> Outcomes:
    """Return outcomes of N images; what is a number is the same for all of them."""
    prediction = np.asarray(prediction)
    if prediction.ndim == 1:
        prediction = np.repeat(prediction[:, None], 4, axis=1)
    count = len(prediction)
    if top5 is None:
        top5 = (prediction[:, :1] + np.arange(5)) % 1000
    return Outcomes(
        prediction=prediction,
        confidence=np.broadcast_to(np.asarray(confidence, np.float32), prediction.shape),
        nll=np.broadcast_to(np.asarray(nll, np.float32), prediction.shape),
        top5=np.asarray(top5),
        group=np.broadcast_to(group, (count,)),
    )


def scored(cell, said, labels, *, shapes=(), **extra):
    extra = {name: np.asarray(array) for name, array in extra.items()}
    return find_scorer(cell.set).score_cell(
        cell,
        said,
        labels=np.asarray(labels),
        extra=extra,
        shapes=shapes,
        subsets=class_subsets(),
    )


def test_a_corruption_has_error_top5_and_likelihood():
    said = outcomes([3, 4, 5, 6], nll=[[0.5], [1], [2], [0.5]])
    cell = scored(Cell("imagenet_c", "fog", 1), said, [3, 9, 6, 4])
    # Right: the first. Among the five from the prediction on: 3, not 9 in 4-8, 6, not 4 in 6-10.
    assert cell.scores["error"].value == 0.75
    assert cell.scores["top5"].value == 0.5
    assert cell.scores["nll"].value == 1.0
    assert cell.outcomes["top1"].tolist() == [True, False, False, False]
    assert cell.scores["error"].low <= 0.75 <= cell.scores["error"].high


def test_a_subset_is_scored_with_200_and_with_all_logits():
    first, second = subset_classes("imagenet_a")[:2]
    prediction = np.zeros((2, 4), int)
    prediction[:, 0] = [first, 1]  # all logits: the second image is taken for another class
    prediction[:, 1] = [first, second]
    said = outcomes(prediction, confidence=0.75)
    cell = scored(Cell("imagenet_a"), said, [first, second])
    assert cell.scores["top1_200"].value == 1
    assert cell.scores["top1"].value == 0.5
    # Both right with confidence 0.75: every gap is 0.25, and the curve of accuracy is all 1.
    assert cell.scores["ece"].value == pytest.approx(0.25)
    assert cell.scores["rms_calibration_error"].value == pytest.approx(0.25)
    assert cell.scores["aurra"].value == 1


def test_clean_images_hold_the_controls_of_the_subsets():
    inside = subset_classes("imagenet_r")[0]
    outside = next(c for c in range(1000) if not any(c in subset_classes(s) for s in SUBSETS))
    prediction = np.zeros((3, 4), int)
    prediction[:, 0] = [inside, 7, outside]
    prediction[:, 2] = [inside, inside, inside]
    cell = scored(Cell("imagenet"), outcomes(prediction), [inside, inside, outside])
    assert cell.scores["top1"].value == pytest.approx(2 / 3)
    assert cell.scores["clean_top1_200/imagenet_r"].value == 1
    assert cell.scores["clean_top1/imagenet_r"].value == 0.5


def test_clean_images_keep_the_confidences_that_imagenet_o_is_told_from():
    inside = subset_classes("imagenet_o")[0]
    outside = next(c for c in range(1000) if c not in subset_classes("imagenet_o"))
    confidence = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]
    said = outcomes([inside, outside], confidence=confidence)
    cell = scored(Cell("imagenet"), said, [inside, outside])
    assert cell.outcomes["confidence_imagenet_o"].tolist() == [np.float32(0.4)]
    of_o = scored(Cell("imagenet_o"), said, [0, 0])
    assert of_o.scores == {}
    assert of_o.outcomes["confidence_imagenet_o"].tolist() == np.float32([0.4, 0.8]).tolist()


def test_real_labels_count_any_of_the_set_and_drop_empty_sets():
    real = [[3, 4], [5, -1], [-1, -1], [-1, -1]]
    cell = scored(Cell("imagenet_real"), outcomes([4, 6, 7, -1]), [0] * 4, real_labels=real)
    assert cell.scores["real"].value == 0.5


def test_real_labels_that_are_all_empty_give_no_score():
    cell = scored(Cell("imagenet_real"), outcomes([4]), [0], real_labels=[[-1, -1]])
    assert cell.scores["real"].value is None


SHAPES = ("cat", "dog", "car")


def test_shape_bias_counts_decisions_for_shape_and_texture_by_class():
    # shape, texture, decision: shape, shape, texture, neither, same class (not counted), not finite
    shapes, textures = [0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 2, 0]
    said = outcomes([0] * 6, group=np.array([0, 0, 0, 0, 2, -1]))
    cell = scored(Cell("cue_conflict"), said, shapes, shapes=SHAPES, texture=textures)
    values = {name: score.value for name, score in cell.scores.items()}
    assert values == {
        "shape_bias": pytest.approx(2 / 3),
        "decided": pytest.approx(3 / 5),
        "shape_bias/cat": 1.0,
        "decided/cat": 1.0,
        "shape_bias/dog": 0.0,
        "decided/dog": 0.5,
        "shape_bias/car": None,
        "decided/car": 0.0,
    }


def test_flips_are_counted_between_neighbours_in_the_order_of_frames():
    # Two videos of three frames, stored in disorder: 1 1 2 flips once of 2, 3 4 3 twice of 2.
    said = outcomes([2, 1, 1, 3, 3, 4])
    cell = scored(
        Cell("imagenet_p", "tilt"),
        said,
        [0] * 6,
        sequence=[0, 0, 0, 1, 1, 1],
        frame=[2, 0, 1, 2, 0, 1],
        sequence_length=[3] * 6,
    )
    assert cell.scores["flip_probability"].value == 0.75
    assert cell.outcomes["flip_probability"].tolist() == [0.5, 1.0]


def test_noise_flips_are_counted_against_the_first_frame():
    cell = scored(
        Cell("imagenet_p", "gaussian_noise"),
        outcomes([3, 4, 3]),
        [0] * 3,
        sequence=[0, 0, 0],
        frame=[0, 1, 2],
        sequence_length=[3] * 3,
    )
    assert cell.scores["flip_probability"].value == 0.5


def test_a_video_with_an_unreadable_frame_is_left_out():
    cell = scored(
        Cell("imagenet_p", "tilt"),
        outcomes([1, 2, 1, 5, 5]),
        [0] * 5,
        sequence=[0, 0, 0, 1, 1],
        frame=[0, 1, 2, 0, 2],
        sequence_length=[3] * 5,
    )
    assert cell.scores["flip_probability"].value == 1.0


@pytest.mark.parametrize(
    ("frames", "length", "message"),
    [([0, 2], 3, "No sequence has all its frames"), ([0], 1, "Sequences have 1 frames")],
)
def test_sequences_that_cannot_flip_are_refused(frames, length, message):
    count = len(frames)
    with pytest.raises(ValueError, match=message):
        scored(
            Cell("imagenet_p", "tilt"),
            outcomes([1] * count),
            [0] * count,
            sequence=[0] * count,
            frame=frames,
            sequence_length=[length] * count,
        )


def test_frames_without_finite_logits_count_as_an_answer_of_their_own():
    said = outcomes([7, -1, 7], top5=[[7, 1, 2, 3, 4], [-1] * 5, [7, 1, 2, 3, 4]])
    cell = scored(
        Cell("imagenet_p", "tilt"),
        said,
        [0] * 3,
        sequence=[0] * 3,
        frame=[0, 1, 2],
        sequence_length=[3] * 3,
    )
    assert cell.scores["flip_probability"].value == 1
    assert cell.scores["top5_distance"].value == 15


def test_stimuli_without_a_conflict_are_refused():
    with pytest.raises(ValueError, match="No stimulus shows"):
        scored(Cell("cue_conflict"), outcomes([0]), [1], shapes=SHAPES, texture=[1])


def test_an_infinite_likelihood_is_no_number():
    said = outcomes([-1, 3], nll=[[np.inf], [1]], confidence=[[0], [0.5]])
    cell = scored(Cell("imagenet_c", "fog", 1), said, [3, 3])
    assert cell.scores["nll"].value is None
    assert cell.scores["error"].value == 0.5
