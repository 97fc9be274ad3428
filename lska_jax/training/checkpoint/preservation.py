"""Which steps of a run stay on the disk."""

from typing import Any

# Under which Orbax keeps a step's score.
METRIC_NAME = "metric"


def kept_steps(*, keep_latest: int, keep_best: int) -> Any:
    """Return Orbax's policy: the newest steps, and those with the highest metric.

    Args:
      keep_latest: how many of the newest.
      keep_best: how many of the best besides; a step without a metric is none of them.

    Raises:
      ValueError: a number out of range.
    """
    if keep_latest < 1:
        raise ValueError(f"keep_latest is {keep_latest}; keep at least 1 step to resume from.")
    if keep_best < 0:
        raise ValueError(f"keep_best is {keep_best}; use 0 to keep no best step.")
    from orbax.checkpoint.experimental.v1 import training

    policies = training.preservation_policies
    chosen = [policies.LatestN(keep_latest)]
    if keep_best:
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[METRIC_NAME],
            n=keep_best,
            # Otherwise every mid-epoch step would stay for ever.
            keep_checkpoints_without_metrics=False,
        )
        chosen.append(best)
    return policies.AnyPreservationPolicy(chosen)
