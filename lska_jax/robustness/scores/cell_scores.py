"""From what a model said about the images of one cell to the cell's scores and their intervals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lska_jax.robustness.cells import Cell, Score
from lska_jax.robustness.scores import accuracy, bootstrap, calibration, perturbation, shape_bias
from lska_jax.robustness.sets.label_sets import subset_classes
from lska_jax.robustness.sweep.outcomes import Outcomes

CORRUPTION_SETS = frozenset({"imagenet_c", "imagenet_c_bar", "clean_c"})
CLEAN_SETS = frozenset({"imagenet", "clean"})
# Of the draws of every interval.
BOOTSTRAP_SEED = 0


class ScoredCell(NamedTuple):
    """Scores of a cell, and what scores over several cells need of its images."""

    scores: dict[str, Score]
    outcomes: dict[str, np.ndarray]


def score_cell(
    cell: Cell,
    outcomes: Outcomes,
    labels: np.ndarray,
    *,
    extra: Mapping[str, np.ndarray],
    shapes: Sequence[str],
    subsets: Sequence[str],
) -> ScoredCell:
    """Score one cell.

    Args:
      cell: which; its set decides on the scores.
      outcomes: of the N counted images, on the host.
      labels: (N,) in the model's classes; of the cue conflict in ``shapes``.
      extra: what the set says of each image besides, see ``sets.opening.CellData``; of frames also
        "sequence_length" (N,), how many their sequence has.
      shapes: shape classes that the model can decide between.
      subsets: names of the class subsets that the outcomes hold behind that of all classes.

    Raises:
      ValueError: the images allow no score.
    """
    if cell.set == "cue_conflict":
        return _score_cue_conflict(outcomes.group, labels, extra["texture"], shapes)
    if cell.set == "imagenet_p":
        return _score_perturbation(cell.part, outcomes, extra)
    if cell.set == "imagenet_real":
        return _score_real(outcomes.prediction[:, 0], extra["real_labels"])
    if cell.set == "imagenet_o":
        column = 1 + list(subsets).index("imagenet_o")
        return ScoredCell({}, {"confidence_imagenet_o": outcomes.confidence[:, column]})
    top1 = outcomes.prediction[:, 0] == labels
    top5 = np.any(outcomes.top5 == labels[:, None], axis=1)
    if cell.set in CORRUPTION_SETS:
        scores = {
            "error": _mean(~top1),
            "top5": _mean(top5),
            "nll": _mean(outcomes.nll[:, 0]),
        }
        return ScoredCell(scores, {"top1": top1})
    scores = {"top1": _mean(top1), "top5": _mean(top5)}
    if cell.set in subsets:
        column = 1 + list(subsets).index(cell.set)
        within = outcomes.prediction[:, column] == labels
        scores = {"top1_200": _mean(within), **scores}
        return ScoredCell({**scores, **_confidence_scores(outcomes, within, column)}, {})
    scores |= _confidence_scores(outcomes, top1, 0)
    kept = {}
    if cell.set in CLEAN_SETS:
        kept["top1"] = top1
        for column, subset in enumerate(subsets, start=1):
            is_member = accuracy.is_in_classes(labels, subset_classes(subset))
            if not is_member.any():
                continue
            within = (outcomes.prediction[:, column] == labels)[is_member]
            scores[f"clean_top1_200/{subset}"] = _mean(within)
            scores[f"clean_top1/{subset}"] = _mean(top1[is_member])
            if subset == "imagenet_o":
                kept["confidence_imagenet_o"] = outcomes.confidence[is_member, column]
    return ScoredCell(scores, kept)


def _confidence_scores(outcomes: Outcomes, correct: np.ndarray, column: int) -> dict[str, Score]:
    confidence = outcomes.confidence[:, column]
    measure = calibration.calibration_scores
    intervals = bootstrap.bootstrap_scores(measure, confidence, correct, seed=BOOTSTRAP_SEED)
    scores = {
        name: with_interval(value, intervals[name])
        for name, value in measure(confidence, correct).items()
        if value is not None
    }
    scores["nll"] = _mean(outcomes.nll[:, column])
    return scores


def _score_cue_conflict(
    decisions: np.ndarray, labels: np.ndarray, textures: np.ndarray, shapes: Sequence[str]
) -> ScoredCell:
    # Logits that are not finite decide for one class more, which follows neither cue.
    undecided = len(shapes)
    counts = shape_bias.shape_bias_per_class(
        np.where(decisions < 0, undecided, decisions),
        labels,
        textures,
        num_classes=undecided + 1,
    )
    whole = shape_bias.ShapeBias(
        *(sum(getattr(of, name) for of in counts) for name in shape_bias.ShapeBias._fields)
    )
    if not whole.counted:
        raise ValueError("no stimulus shows the shape of one class in the texture of another.")
    named = {"": whole, **{f"/{name}": of for name, of in zip(shapes, counts, strict=False)}}
    scores = {}
    for suffix, of in named.items():
        if not of.counted:
            continue
        intervals = bootstrap.bootstrap_shape_bias(of, seed=BOOTSTRAP_SEED)
        scores[f"shape_bias{suffix}"] = with_interval(of.bias, intervals.bias)
        scores[f"decided{suffix}"] = with_interval(of.decided_fraction, intervals.decided_fraction)
    return ScoredCell(scores, {})


def _score_perturbation(
    name: str, outcomes: Outcomes, extra: Mapping[str, np.ndarray]
) -> ScoredCell:
    sequence, length = extra["sequence"], extra["sequence_length"]
    order = np.lexsort((extra["frame"], sequence))
    _, counts = np.unique(sequence, return_counts=True)
    # A video without one of its frames would compare frames that are not neighbours.
    is_whole = counts == length[order][np.cumsum(counts) - 1]
    if not is_whole.any():
        raise ValueError("no sequence has all its frames: some of each cannot be read.")
    order = order[np.repeat(is_whole, counts)]
    lengths = np.unique(counts[is_whole])
    if len(lengths) > 1 or lengths[0] < 2:
        raise ValueError(
            f"sequences of {', '.join(map(str, lengths))} frames: all must have as many, 2 or more."
        )
    shape = (int(is_whole.sum()), int(lengths[0]))
    # Logits that are not finite are classes of their own.
    known = int(max(outcomes.prediction.max(), outcomes.top5.max())) + 1
    unknown = known + np.arange(outcomes.top5.shape[1])
    classes = known + len(unknown)
    predictions = np.where(outcomes.prediction < 0, known, outcomes.prediction)
    top5 = np.where(outcomes.top5 < 0, unknown, outcomes.top5)
    is_noise = perturbation.is_noise(name)
    flips = perturbation.flip_probabilities(
        predictions[order, 0].reshape(shape), noise=is_noise, num_classes=classes
    )
    distances = perturbation.top5_distances(
        top5[order].reshape(*shape, -1), noise=is_noise, num_classes=classes
    )
    of_videos = {"flip_probability": flips, "top5_distance": distances}
    return ScoredCell(
        {key: _mean(values) for key, values in of_videos.items()},
        {key: values.astype(np.float32) for key, values in of_videos.items()},
    )


def _score_real(predictions: np.ndarray, real_labels: np.ndarray) -> ScoredCell:
    has_labels = np.any(real_labels >= 0, axis=1)
    if not has_labels.any():
        return ScoredCell({"real": Score(None)}, {})
    hits = np.any(real_labels == predictions[:, None], axis=1) & (predictions >= 0)
    return ScoredCell({"real": _mean(hits[has_labels])}, {})


def _mean(values: np.ndarray) -> Score:
    """Return a mean over images; undefined where one is infinite."""
    if not np.isfinite(values).all():
        return Score(None)
    values = values.astype(np.float64)
    return with_interval(
        float(values.mean()), bootstrap.bootstrap_mean(values, seed=BOOTSTRAP_SEED)
    )


def with_interval(value: float | None, interval: bootstrap.Interval | None) -> Score:
    """Return a score; without an interval where there is none."""
    if value is None or interval is None:
        return Score(value)
    return Score(value, interval.low, interval.high)
