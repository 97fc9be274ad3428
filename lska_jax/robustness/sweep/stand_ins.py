"""Images for the suite "smoke" where none are given: drawings of a model's own classes.

With them a model of CIFAR-10's classes, such as the one that comes with the package, is measured at
once, on a machine with neither data nor network.
"""

import dataclasses
from collections.abc import Sequence

from lska_jax.data import drawings
from lska_jax.robustness.sweep.classifier import Classifier
from lska_jax.robustness.sweep.plan import SweepOptions

SMOKE = "smoke"


def with_drawings(options: SweepOptions, chosen: Sequence[Classifier]) -> SweepOptions:
    """Return the options of a sweep, with drawings where they stand in for missing images.

    That is where the suite is "smoke" alone, neither clean nor corrupted images are given, and the
    models have the drawings' classes, in any order. The corruptions are generated then.

    Args:
      options: as they were given.
      chosen: the models.
    """
    names = chosen[0].class_names
    is_lacking = options.suite == SMOKE and not options.clean and not options.corrupted
    if not is_lacking or names is None or sorted(names) != sorted(drawings.CLASS_NAMES):
        return options
    return dataclasses.replace(
        options, clean=drawings.NAME, clean_split=drawings.SPLIT_TO_MEASURE, generate=True
    )
