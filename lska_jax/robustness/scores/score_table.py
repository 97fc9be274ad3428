"""What every score is called, which way is better, and what it means: what a report prints."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

Unit = Literal["fraction", "ratio", "nats", "ranks"]

_IMAGENET_C = "Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.2"
_NATURAL = "Hendrycks et al. 2021, arXiv 1907.07174, section 4"
_GEIRHOS = "Geirhos et al. 2019, arXiv 1811.12231, section 3"
_GUO = "Guo et al. 2017, arXiv 1706.04599"


class ScoreFacts(NamedTuple):
    """One score.

    Attributes:
      name: key in results.
      label: for print.
      unit: "fraction" is in [0, 1] and printed in percent; "ratio" is 1 for its reference and
        printed in percent; "nats" and "ranks" are printed as they are.
      is_higher_better: None where neither direction is.
      definition: one sentence.
      source: paper and section.
    """

    name: str
    label: str
    unit: Unit
    is_higher_better: bool | None
    definition: str
    source: str

    @property
    def is_percent(self) -> bool:
        """Whether the number is multiplied by 100 for print."""
        return self.unit in ("fraction", "ratio")

    @property
    def arrow(self) -> str:
        """The direction that is better, as an arrow; empty where neither is."""
        return {True: "↑", False: "↓", None: ""}[self.is_higher_better]


_FACTS = (
    ScoreFacts(
        "top1",
        "top-1",
        "fraction",
        True,
        "Share of images whose label has the largest of all logits.",
        "Russakovsky et al. 2015, arXiv 1409.0575",
    ),
    ScoreFacts(
        "top5",
        "top-5",
        "fraction",
        True,
        "Share of images whose label is among the five largest of all logits.",
        "Russakovsky et al. 2015, arXiv 1409.0575",
    ),
    ScoreFacts(
        "top1_200",
        "top-1 (200 logits)",
        "fraction",
        True,
        "Share of images whose label has the largest logit among the 200 classes of the set.",
        _NATURAL,
    ),
    ScoreFacts(
        "clean_top1_200",
        "clean top-1 (200 logits)",
        "fraction",
        True,
        "Top-1 with 200 logits on the clean validation images of the set's 200 classes.",
        _NATURAL,
    ),
    ScoreFacts(
        "clean_top1",
        "clean top-1 (1000 logits)",
        "fraction",
        True,
        "Top-1 with all logits on the clean validation images of the set's 200 classes.",
        "control of this benchmark",
    ),
    ScoreFacts(
        "real",
        "ReaL",
        "fraction",
        True,
        "Share of images whose prediction is one of their reassessed labels; images without any "
        "such label are dropped.",
        "Beyer et al. 2020, arXiv 2006.07159",
    ),
    ScoreFacts(
        "error",
        "error",
        "fraction",
        False,
        "1 - top-1 on one corruption at one severity.",
        _IMAGENET_C,
    ),
    ScoreFacts(
        "ce",
        "CE",
        "ratio",
        False,
        "Sum of the errors on one corruption over the five severities, divided by AlexNet's.",
        _IMAGENET_C,
    ),
    ScoreFacts(
        "mce_15",
        "mCE (15)",
        "ratio",
        False,
        "Mean of CE over the 15 corruptions of the benchmark.",
        _IMAGENET_C,
    ),
    ScoreFacts(
        "mce_19",
        "mCE (19)",
        "ratio",
        False,
        "Mean of CE over 19 corruptions, the 15 of the benchmark and the four extra.",
        "the mean of " + _IMAGENET_C + ", over the four extra as well",
    ),
    ScoreFacts(
        "relative_mce_15",
        "relative mCE (15)",
        "ratio",
        False,
        "What corruption adds to the clean error, divided by what it adds to AlexNet's; mean over "
        "the 15 corruptions.",
        _IMAGENET_C,
    ),
    ScoreFacts(
        "relative_mce_19",
        "relative mCE (19)",
        "ratio",
        False,
        "What corruption adds to the clean error, divided by what it adds to AlexNet's; mean over "
        "19 corruptions.",
        "the mean of " + _IMAGENET_C + ", over the four extra as well",
    ),
    ScoreFacts(
        "mean_error",
        "mean error",
        "fraction",
        False,
        "Mean error over the set's corruptions and five severities, not divided by AlexNet's: 15 "
        "corruptions in ImageNet-C, 10 in ImageNet-C-bar.",
        "Hendrycks et al. 2020, arXiv 1912.02781; Mintun et al. 2021, arXiv 2102.11273",
    ),
    ScoreFacts(
        "mean_error_19",
        "mean error (19)",
        "fraction",
        False,
        "Mean error over 19 corruptions and five severities, not divided by AlexNet's.",
        "Hendrycks et al. 2020, arXiv 1912.02781, over the four extra as well",
    ),
    ScoreFacts(
        "retention_15",
        "retention (15)",
        "ratio",
        True,
        "Mean accuracy over the 15 corruptions and five severities, divided by clean accuracy.",
        "Zhou et al. 2022, arXiv 2204.12451",
    ),
    ScoreFacts(
        "retention_19",
        "retention (19)",
        "ratio",
        True,
        "Mean accuracy over 19 corruptions and five severities, divided by clean accuracy.",
        "Zhou et al. 2022, arXiv 2204.12451, over the four extra as well",
    ),
    ScoreFacts(
        "rms_calibration_error",
        "RMS calibration error",
        "fraction",
        False,
        "Root of the mean squared difference of accuracy and confidence over bins of 100 images "
        "of similar confidence.",
        _NATURAL,
    ),
    ScoreFacts(
        "rms_calibration_error_published",
        "RMS calibration error (published code)",
        "fraction",
        False,
        "RMS calibration error without the bin of the most confident images, which the published "
        "code skips; for comparison with published numbers.",
        "github.com/hendrycks/natural-adv-examples, calibration_tools.py",
    ),
    ScoreFacts(
        "ece",
        "ECE (15 bins)",
        "fraction",
        False,
        "Mean difference of accuracy and confidence, without sign, over 15 bins of equal width.",
        _GUO + ", equation 3",
    ),
    ScoreFacts(
        "aurra",
        "AURRA",
        "fraction",
        True,
        "Mean over n of the accuracy on the n most confident images.",
        _NATURAL,
    ),
    ScoreFacts(
        "nll",
        "negative log-likelihood",
        "nats",
        False,
        "Mean of -log of the probability of the label.",
        _GUO + ", equation 6",
    ),
    ScoreFacts(
        "aupr_out",
        "AUPR",
        "fraction",
        True,
        "Average precision of telling ImageNet-O from validation images of the same 200 classes "
        "by low confidence.",
        _NATURAL,
    ),
    ScoreFacts(
        "flip_probability",
        "flip probability",
        "fraction",
        False,
        "Share of frames whose prediction differs from that of the frame before; of the first "
        "frame in noise sequences; not divided by AlexNet's.",
        _IMAGENET_C,
    ),
    ScoreFacts(
        "top5_distance",
        "top-5 distance",
        "ranks",
        False,
        "Mean over the same pairs of frames of the ranks by which their five most likely classes "
        "differ, 0 to 15; not divided by AlexNet's.",
        _IMAGENET_C,
    ),
    ScoreFacts(
        "shape_bias",
        "shape bias",
        "fraction",
        None,
        "Of the cue conflict stimuli decided for their shape or their texture, the share decided "
        "for shape.",
        _GEIRHOS,
    ),
    ScoreFacts(
        "decided",
        "decided",
        "fraction",
        True,
        "Share of the cue conflict stimuli, those with shape and texture of different classes, "
        "that are decided for one of the two.",
        _GEIRHOS,
    ),
)

_MICHAELIS = "Michaelis et al. 2019, arXiv 1907.07484, section 3.1"
_PRECISION = "scikit-learn's average_precision_score"
_COCO = "cocodataset.org/#detection-eval"
_DENSE = (
    ("miou", "mIoU", "Mean over classes of intersection over union, over all pixels of a set.", ""),
    ("macc", "mAcc", "Mean over classes of the share of their pixels that are found.", ""),
    ("aacc", "aAcc", "Share of all labelled pixels whose class is found.", ""),
    ("box_ap", "box AP", "COCO's AP of boxes, mean over overlaps of 0.5 to 0.95.", _COCO),
    ("box_ap50", "box AP50", "COCO's AP of boxes at an overlap of 0.5.", _COCO),
    ("mask_ap", "mask AP", "COCO's AP of masks, mean over overlaps of 0.5 to 0.95.", _COCO),
    ("mask_ap50", "mask AP50", "COCO's AP of masks at an overlap of 0.5.", _COCO),
    ("map", "mAP", "Mean over the labels of their average precision over all images.", _PRECISION),
)

_WITH_MEANS = ("miou", "box_ap", "mask_ap", "map")


def _dense_facts() -> Iterator[ScoreFacts]:
    """Yield metrics of segmentors and detectors, and their means over corruptions."""
    for name, label, definition, source in _DENSE:
        yield ScoreFacts(
            name, label, "fraction", True, definition, source or "as mmsegmentation counts it"
        )
        if name not in _WITH_MEANS:
            continue
        for count in (15, 19):
            over = f"{count} corruptions and five severities"
            yield ScoreFacts(
                f"mean_{name}_{count}",
                f"mean {label} ({count})",
                "fraction",
                True,
                f"Mean of {label} over {over}.",
                _MICHAELIS,
            )
            yield ScoreFacts(
                f"retention_{name}_{count}",
                f"retention of {label} ({count})",
                "ratio",
                True,
                f"Mean of {label} over {over}, divided by that of the clean images.",
                _MICHAELIS,
            )


SCORES: Mapping[str, ScoreFacts] = MappingProxyType(
    {facts.name: facts for facts in (*_FACTS, *_dense_facts())}
)


def score_facts(key: str) -> ScoreFacts:
    """Return the facts of a score by its key in results, e.g. "mce_15" or "ce/fog".

    A key may go on after the score's name, with the corruption or shape class that it is of.

    Raises:
      ValueError: there is no such score.
    """
    name = key.partition("/")[0]
    if name not in SCORES:
        raise ValueError(f"There is no score {name!r}: known are {', '.join(SCORES)}.")
    return SCORES[name]
