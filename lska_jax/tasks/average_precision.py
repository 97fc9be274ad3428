"""Mean average precision of several labels an image, from the scores of all examples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float


def average_precision(
    scores: Float[np.ndarray, " examples"], is_positive: Bool[np.ndarray, " examples"]
) -> float | None:
    """Return sum_n (R_n - R_(n-1)) P_n over the thresholds, as scikit-learn defines it.

    Equal scores are one threshold. Scores that are no numbers rank last.

    Args:
      scores: of one label.
      is_positive: which examples have the label.

    Returns:
      In [0, 1]; None where no example has the label.
    """
    count = int(is_positive.sum())
    if not count:
        return None
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    # The last place of each run of equal scores.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    recall = hits[ends] / count
    precision = hits[ends] / (ends + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_average_precision(
    scores: Float[np.ndarray, "examples classes"], labels: Bool[np.ndarray, "examples classes"]
) -> float:
    """Return the mean over the labels that some example has.

    Raises:
      ValueError: no example has any label.
    """
    each = [average_precision(scores[:, c], labels[:, c]) for c in range(labels.shape[1])]
    known = [value for value in each if value is not None]
    if not known:
        raise ValueError("No example of the evaluation has any label; give it some that have.")
    return float(np.mean(known))
