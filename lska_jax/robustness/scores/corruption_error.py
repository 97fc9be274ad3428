"""Corruption error and its relatives: ImageNet-C and ImageNet-C-bar.

E(c, s) is the top-1 error of the model on corruption c at severity s, E(clean) that on the same
images without corruption; A is the same of AlexNet. Source: Hendrycks and Dietterich, arXiv
1903.12261, section 4.2, unless a function names another.

A score over corruptions is complete or it is none: where cells are missing, the functions return
``MissingCells``, which is no number and names them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from lska_jax.robustness.scores.reference_errors import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    ALL_CORRUPTIONS,
    C_BAR_CORRUPTIONS,
    CORRUPTIONS,
    SEVERITIES,
)

CorruptionCount = Literal[15, 19]
CORRUPTION_COUNTS: tuple[CorruptionCount, ...] = (15, 19)


class MissingCells(NamedTuple):
    """In place of a score that cannot be given.

    Attributes:
      score: what could not be computed.
      missing: (corruption, severity) of each absent cell; severity 0 where a set has none.
    """

    score: str
    missing: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """Return one line that names the score and the cells."""
        cells = (name if severity == 0 else f"{name}/{severity}" for name, severity in self.missing)
        return f"no {self.score}: {len(self.missing)} missing ({', '.join(cells)})"


def corruption_set(count: CorruptionCount) -> tuple[str, ...]:
    """Return the 15 corruptions of the benchmark, or the 19 that its files hold.

    Raises:
      ValueError: another count; no mCE is defined over it.
    """
    if count not in (15, 19):
        raise ValueError(
            f"mCE over {count} corruptions is not defined: it is 15 (the benchmark) or 19 (with "
            "the four extra). Use mean_error for any other choice."
        )
    return CORRUPTIONS if count == 15 else ALL_CORRUPTIONS


def error_table(
    errors: Mapping[tuple[str, int], float],
    corruptions: Sequence[str],
    *,
    score: str,
    known: Sequence[str] = ALL_CORRUPTIONS,
) -> Float[np.ndarray, "corruptions 5"] | MissingCells:
    """Return errors as a table, or what is missing from it.

    Args:
      errors: (corruption, severity) to top-1 error in [0, 1]; cells of other known corruptions may
        be there too.
      corruptions: rows of the table.
      score: what the table is for, named where cells are missing.
      known: every corruption that the set has.

    Returns:
      (C, 5) float64, severities 1 to 5.

    Raises:
      ValueError: a corruption or severity that the set does not have; an error that is NaN or
        outside [0, 1]; no corruptions.
    """
    if not corruptions:
        raise ValueError(f"No corruptions: {score} needs at least one of {', '.join(known)}.")
    check_cells([*errors, *((name, 1) for name in corruptions)], known=known)
    for (name, severity), error in errors.items():
        check_error(f"The error of {name}/{severity}", error)
    hole = missing_cells(errors, corruptions, score=score)
    if hole is not None:
        return hole
    rows = [[errors[name, severity] for severity in SEVERITIES] for name in corruptions]
    return np.asarray(rows, dtype=np.float64)


def check_cells(
    cells: Collection[tuple[str, int]], *, known: Sequence[str] = ALL_CORRUPTIONS
) -> None:
    """Check that a set has all these cells.

    Raises:
      ValueError: a corruption or severity that it does not have.
    """
    for name, severity in cells:
        if name not in known:
            raise ValueError(
                f"There is no corruption {name!r} in this set: known are {', '.join(known)}. Pass "
                "the cells of one set only."
            )
        if severity not in SEVERITIES:
            raise ValueError(f"{name} has no severity {severity}: severities are 1 to 5.")


def missing_cells(
    cells: Collection[tuple[str, int]], corruptions: Sequence[str], *, score: str
) -> MissingCells | None:
    """Return which (corruption, severity) a score over corruptions lacks, None if none."""
    needed = [(name, severity) for name in corruptions for severity in SEVERITIES]
    missing = tuple(cell for cell in needed if cell not in cells)
    return MissingCells(score, missing) if missing else None


def corruption_error(
    errors: Mapping[tuple[str, int], float], corruption: str
) -> float | MissingCells:
    """Return CE_c = sum_s E(c, s) / sum_s A(c, s), severities 1 to 5.

    A ratio: 1 is AlexNet, lower is better; printed as a percentage. Arguments and errors as in
    ``error_table``.
    """
    table = error_table(errors, [corruption], score=f"CE of {corruption}")
    if isinstance(table, MissingCells):
        return table
    return float(ce_of_means(table.mean(axis=1), [corruption])[0])


def mean_corruption_error(
    errors: Mapping[tuple[str, int], float], *, count: CorruptionCount = 15
) -> float | MissingCells:
    """Return mCE, the mean of CE_c over the corruptions.

    A ratio: 1 is AlexNet, lower is better; printed as a percentage. AlexNet's errors are those on
    ImageNet: on images of another size or with other classes, use ``mean_error``.

    Args:
      errors: as in ``error_table``.
      count: 15, as the benchmark defines it, or 19, with the extra four: another number, never to
        be compared with it.

    Raises:
      ValueError: as ``error_table`` and ``corruption_set``.
    """
    corruptions = corruption_set(count)
    table = error_table(errors, corruptions, score=f"mCE ({count})")
    if isinstance(table, MissingCells):
        return table
    return float(ce_of_means(table.mean(axis=1), corruptions).mean())


def relative_mean_corruption_error(
    errors: Mapping[tuple[str, int], float], clean_error: float, *, count: CorruptionCount = 15
) -> float | MissingCells:
    """Return relative mCE: how much corruption adds to the error, in units of AlexNet's increase.

    The mean over c of sum_s (E(c, s) - E(clean)) / sum_s (A(c, s) - A(clean)). A ratio, lower is
    better; negative where corrupted images are the easier ones.

    Args:
      errors: as in ``error_table``.
      clean_error: top-1 error on the images without corruption, in [0, 1].
      count: 15 or 19 corruptions.

    Raises:
      ValueError: as ``error_table`` and ``corruption_set``; the clean error is outside [0, 1].
    """
    check_error("The clean error", clean_error)
    corruptions = corruption_set(count)
    table = error_table(errors, corruptions, score=f"relative mCE ({count})")
    if isinstance(table, MissingCells):
        return table
    means = table.mean(axis=1)
    return float(relative_ce_of_means(means, corruptions, np.asarray(clean_error)).mean())


def mean_error(
    errors: Mapping[tuple[str, int], float], *, corruptions: Sequence[str] = CORRUPTIONS
) -> float | MissingCells:
    """Return the mean of E(c, s) over corruptions and severities: no AlexNet in it.

    A fraction in [0, 1], lower is better. What CIFAR-10-C is scored by (Hendrycks et al., AugMix,
    arXiv 1912.02781, section 4).

    Args:
      errors: as in ``error_table``.
      corruptions: over which; say in print how many.

    Raises:
      ValueError: as ``error_table``.
    """
    table = error_table(errors, corruptions, score=f"mean error ({len(corruptions)})")
    return table if isinstance(table, MissingCells) else float(table.mean())


def c_bar_mean_error(errors: Mapping[tuple[str, int], float]) -> float | MissingCells:
    """Return the mean error over the 10 corruptions x 5 severities of ImageNet-C-bar.

    A fraction in [0, 1], lower is better. Source: Mintun et al., arXiv 2102.11273, section 5.
    Arguments and errors as in ``error_table``, of that set.
    """
    table = error_table(
        errors, C_BAR_CORRUPTIONS, score="mean error (C-bar)", known=C_BAR_CORRUPTIONS
    )
    return table if isinstance(table, MissingCells) else float(table.mean())


def retention(
    errors: Mapping[tuple[str, int], float], clean_error: float, *, count: CorruptionCount = 15
) -> float | None | MissingCells:
    """Return the mean of 1 - E(c, s) over all cells, divided by 1 - E(clean).

    The share of the clean accuracy that survives corruption. A ratio, higher is better; None for a
    model that gets no clean image right. Source: Zhou et al., "Understanding The Robustness in
    Vision Transformers", arXiv 2204.12451, who call it the retention rate.

    Args:
      errors: as in ``error_table``.
      clean_error: top-1 error on the images without corruption, in [0, 1].
      count: 15 or 19 corruptions.

    Raises:
      ValueError: as ``error_table`` and ``corruption_set``; the clean error is outside [0, 1].
    """
    check_error("The clean error", clean_error)
    table = error_table(errors, corruption_set(count), score=f"retention ({count})")
    if isinstance(table, MissingCells):
        return table
    return None if clean_error == 1 else float((1 - table).mean() / (1 - clean_error))


def corruption_scores(
    errors: Mapping[tuple[str, int], float], *, clean_error: float | None = None
) -> dict[str, float | None | MissingCells]:
    """Return every score of ImageNet-C by its name in the table of scores.

    "mce_15", "mce_19", "mean_error" over the 15, "mean_error_19", "ce/CORRUPTION" for all 19 and,
    where the clean error is known, "relative_mce_15", "relative_mce_19", "retention_15" and
    "retention_19".

    Args:
      errors: as in ``error_table``.
      clean_error: top-1 error on the images without corruption, in [0, 1].

    Raises:
      ValueError: as ``error_table``; the clean error is outside [0, 1].
    """
    scores: dict[str, float | None | MissingCells] = {
        "mean_error": mean_error(errors, corruptions=CORRUPTIONS),
        "mean_error_19": mean_error(errors, corruptions=ALL_CORRUPTIONS),
    }
    for count in CORRUPTION_COUNTS:
        scores[f"mce_{count}"] = mean_corruption_error(errors, count=count)
        if clean_error is not None:
            scores[f"relative_mce_{count}"] = relative_mean_corruption_error(
                errors, clean_error, count=count
            )
            scores[f"retention_{count}"] = retention(errors, clean_error, count=count)
    return scores | {f"ce/{name}": corruption_error(errors, name) for name in ALL_CORRUPTIONS}


def ce_of_means(
    errors: Float[np.ndarray, "*draws corruptions"], corruptions: Sequence[str]
) -> Float[np.ndarray, "*draws corruptions"]:
    """Return CE_c from the mean over severities of E(c, s); of one draw of images, or of many."""
    return errors / np.asarray([ALEXNET_ERRORS[name] for name in corruptions])


def relative_ce_of_means(
    errors: Float[np.ndarray, "*draws corruptions"],
    corruptions: Sequence[str],
    clean_error: Float[np.ndarray, "*draws"],
) -> Float[np.ndarray, "*draws corruptions"]:
    """Return relative CE_c from the mean over severities of E(c, s), and E(clean)."""
    alexnet = np.asarray([ALEXNET_ERRORS[name] for name in corruptions]) - ALEXNET_CLEAN_ERROR
    return (errors - np.expand_dims(clean_error, -1)) / alexnet


def check_error(name: str, error: float) -> None:
    """Check that an error is a fraction.

    Raises:
      ValueError: it is NaN or outside [0, 1].
    """
    if not 0 <= error <= 1:
        raise ValueError(
            f"{name} is {error}: an error is a fraction in [0, 1]. Divide percent by 100; record a "
            "cell without a result as missing instead of NaN."
        )
