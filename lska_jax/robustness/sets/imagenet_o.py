"""ImageNet-O: images of none of the 1000 classes, which a model should be unsure about."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from lska_jax.robustness.cells import Cell, Outcomes
from lska_jax.robustness.scores.bootstrap import bootstrap_aupr_out
from lska_jax.robustness.scores.detection import aupr_out
from lska_jax.robustness.scores.over_cells import stamp
from lska_jax.robustness.scores.scorer import (
    BOOTSTRAP_SEED,
    CellsOfSet,
    ClassSubset,
    OverCells,
    ScoredCell,
    Scorer,
    with_interval,
)
from lska_jax.robustness.scores.subset_scorers import column_of, confidence_key
from lska_jax.robustness.sets.class_folders import wnid_folders
from lska_jax.robustness.sets.layouts import named_folders
from lska_jax.robustness.sets.record import FoundFiles, ImageSet, Opened
from lska_jax.robustness.sets.shifted_photos import HENDRYCKS_2021, class_subset


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionScorer(Scorer):
    """AUPR of telling the set's images from clean ones by their confidence.

    Attributes:
      clean: set of the clean images.
    """

    headlines: tuple[str, ...] = ("aupr_out",)
    clean: str

    def score_cell(
        self,
        cell: Cell,
        outcomes: Outcomes,
        *,
        labels: np.ndarray,
        extra: Mapping[str, np.ndarray],
        shapes: Sequence[str],
        subsets: Sequence[ClassSubset],
    ) -> ScoredCell:
        """Keep the confidences; there is no score without the clean images. See ``Scorer``."""
        confidence = outcomes.confidence[:, column_of(cell.set, subsets)]
        return ScoredCell({}, {confidence_key(cell.set): confidence})

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Compare the confidences with those of clean images; see ``Scorer``."""
        clean, key = cells.get(Cell(self.clean)), confidence_key(name)
        if clean is None or key not in clean.outcomes:
            hole = (
                "is measured against clean images of the same 200 classes, which have no results: "
                f"add {self.clean} to --suite"
            )
            return OverCells({}, hole)
        (result,) = of_set.values()
        outside, known = result.outcomes[key], clean.outcomes[key]
        interval = bootstrap_aupr_out(outside, known, seed=BOOTSTRAP_SEED)
        score = with_interval(aupr_out(outside, known), interval)
        return OverCells({f"{name}/aupr_out": stamp(score, [result], clean=clean)})


def open_unknown(found: FoundFiles) -> Opened:
    """Open images whose folders name the class that each is mistaken for: no label is right."""
    count = len(found.labels)
    without = found._replace(labels=np.zeros(count, np.int32))
    return without.source(), {"is_ood": np.ones(count, bool)}


IMAGENET_O = ImageSet(
    name="imagenet_o",
    title="ImageNet-O",
    label_space="none of the 1000 classes",
    citation=HENDRYCKS_2021,
    license="MIT",  # huggingface.co/datasets/cais/imagenet-o, its authors' institute
    where="https://github.com/hendrycks/natural-adv-examples",
    download_gb=177_617_920 / 1e9,  # the same page
    num_images=2_000,  # the paper
    layout="imagenet-o/WNID/*.JPEG",
    note="folders name the class that an image is mistaken for, not what it shows",
    places=named_folders("imagenet-o"),
    classes=wnid_folders("imagenet_o"),
    open_files=open_unknown,
    scorer=DetectionScorer(clean="imagenet"),
    subset=functools.partial(class_subset, "imagenet_o", keeps_confidence=True),
)
