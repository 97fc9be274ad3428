"""The benchmark's scores: outcomes of images in, numbers out, NumPy only.

A number is a fraction or a ratio, never percent. A score that is undefined is None, one that cells
are missing for is ``MissingCells``, and input that makes no sense is a ValueError.
"""

from lska_jax.robustness.scores.corruption_error import MissingCells
from lska_jax.robustness.scores.score_table import SCORES, ScoreFacts, score_facts

__all__ = ["SCORES", "MissingCells", "ScoreFacts", "score_facts"]
