"""The 19 corruptions of ImageNet-C at five severities, on device (arXiv 1903.12261).

``corrupt`` applies one to a batch. Each corruption has an inner function that takes what chance
decides as an argument, so that the same draws can be given to another implementation.
"""

from lska_jax.robustness.corruptions.corrupting import corrupt
from lska_jax.robustness.corruptions.frost_pictures import (
    FrostPictures,
    frost_is_comparable,
    load_frost_pictures,
    synthetic_frost_pictures,
)
from lska_jax.robustness.corruptions.sheet import sample_sheet
from lska_jax.robustness.scores.reference_errors import (
    ALL_CORRUPTIONS,
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
)

__all__ = [
    "ALL_CORRUPTIONS",
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "SEVERITIES",
    "FrostPictures",
    "corrupt",
    "frost_is_comparable",
    "load_frost_pictures",
    "sample_sheet",
    "synthetic_frost_pictures",
]
