"""Ending a run whose deciding metric gets no better; the count is kept in every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Patience:
    """Counts the evaluations in a row that are not better than the best before them.

    Args:
      limit: how many of them end the run; 0 never ends it.
      record: what a checkpoint has kept, from ``record``; empty for a fresh run.
    """

    def __init__(self, limit: int, record: Mapping[str, Any] | None = None) -> None:
        self._limit = limit
        self._best: float | None = (record or {}).get("best")
        self._waited: int = (record or {}).get("waited", 0)

    def note(self, score: float) -> None:
        """Count an evaluation; higher scores are better, and one that is no number is not."""
        if math.isfinite(score) and (self._best is None or score > self._best):
            self._best, self._waited = score, 0
        else:
            self._waited += 1

    @property
    def is_over(self) -> bool:
        """Whether the run ends here."""
        return 0 < self._limit <= self._waited

    def describe(self) -> str:
        """Return why the run ends."""
        return (
            f"no evaluation of the last {self._waited} was better than the best before "
            f"(training.patience={self._limit})"
        )

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self._best, "waited": self._waited}
