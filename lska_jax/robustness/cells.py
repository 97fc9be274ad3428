"""What a robustness sweep measures and what comes out: the words that its parts share.

A *cell* is one set of images that gets scores of its own: one corruption at one severity, one
variant of ImageNet-V2, the whole of ImageNet-A. A sweep turns cells into *results*, or into *holes*
where data are missing; a *summary* holds a model's scores over all of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

PROVENANCES = ("official", "tfds", "generated", "own")


class Cell(NamedTuple):
    """One set of images with scores of its own.

    Attributes:
      set: name in the catalogue, e.g. "imagenet_c".
      part: corruption, perturbation or variant, e.g. "gaussian_noise"; "" where a set has none.
      severity: 1 to 5; 0 where a set has none.
    """

    set: str
    part: str = ""
    severity: int = 0

    def __str__(self) -> str:
        """Return the cell's name, e.g. ``imagenet_c/gaussian_noise/3``."""
        words = (self.set, self.part, str(self.severity) if self.severity else "")
        return "/".join(word for word in words if word)


class Outcomes(NamedTuple):
    """What a model says about N images; on the device for a batch, on the host for a cell.

    Q subsets of the classes are looked at, the first of them all classes.

    Attributes:
      prediction: (N, Q) int32, the class with the largest logit of the subset; the lowest index
        among equals; -1 where a logit is not finite.
      confidence: (N, Q) float32, its softmax probability within the subset; 0 where a logit is not
        finite.
      nll: (N, Q) float32, minus the log-probability of the label within the subset; infinite where
        the label is outside it or a logit is not finite.
      top5: (N, 5) int32, the classes with the largest logits, largest first; -1 where a logit is
        not finite. (N, 1) where K <= 5: five of so few say nothing.
      group: (N,) int32, the group of classes with the largest mean probability; -1 where a logit is
        not finite.
    """

    prediction: Any
    confidence: Any
    nll: Any
    top5: Any
    group: Any


class Score(NamedTuple):
    """A number with its 95 % interval; None where it is not defined.

    Attributes:
      value: the score, as the table of scores defines it; fractions, not percent.
      low: lower end of the 95 % bootstrap interval over images.
      high: its upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelStamp:
    """Which model was measured.

    Attributes:
      name: unique within a results file.
      sha256: of its weights, or of the function where no weights are known.
      preprocessing: of an ordinary photo, in words, e.g. "short side 248 bicubic, crop 224".
      facts: what pictures need besides: "k", "attention", "parameters"; any of them may be missing.
    """

    name: str
    sha256: str
    preprocessing: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """What one model scored in one cell.

    Attributes:
      model: name of the model.
      cell: which cell.
      provenance: "official", "tfds", "generated" or "own".
      origin: folder, archive or builder that was read, for a person.
      preprocessing: of the images of this cell, in words.
      num_images: images counted.
      num_broken: images that could not be decoded and are not counted.
      note: what makes the scores not comparable with published ones, or "".
      scores: by name, see ``lska_jax.robustness.scores``; fractions.
      outcomes: per image, in the order of file names, what scores over several cells need: "top1"
        (N,) bool; elsewhere "confidence_imagenet_o" (N,) float32 and so on; and "images" (8,)
        uint8, equal where cells show the same images.
      seconds: that the cell took.
    """

    model: str
    cell: Cell
    provenance: str
    origin: str
    preprocessing: str
    num_images: int
    num_broken: int = 0
    note: str = ""
    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    outcomes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


class Hole(NamedTuple):
    """A cell without a result.

    Attributes:
      cell: which.
      reason: what is missing, where to get it and how large it is; one line.
    """

    cell: Cell
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StampedScore:
    """A score of a summary with everything that says what it is worth.

    Attributes:
      score: value and interval.
      provenance: "official", "tfds", "generated", "own"; never mixed within one score.
      preprocessing: of the images, in words.
      num_images: images that it rests on.
      note: e.g. "synthetic frost: not comparable", "unreadable images: 3"; or "".
    """

    score: Score
    provenance: str
    preprocessing: str
    num_images: int
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """All scores of one model.

    Attributes:
      model: which.
      scores: by key. ``SET/SCORE`` for a whole set: "imagenet/top1", "imagenet_c/mce_15",
        "imagenet_c/mean_error", "imagenet_a/top1_200", "cue_conflict/shape_bias". One level more
        for a part: "imagenet_c/ce/gaussian_noise", "cue_conflict/shape_bias/airplane"; and for a
        severity: "imagenet_c/error/gaussian_noise/3". A score that cells are missing for is not
        there: never a mean over what happens to be present.
      holes: the planned cells without a result.
    """

    model: ModelStamp
    scores: Mapping[str, StampedScore]
    holes: tuple[Hole, ...] = ()

    def __str__(self) -> str:
        """Return every score as a line of a table; reports choose and word them better."""
        lines = [("score", "value", "95 % interval", "images", "provenance")]
        for key, stamped in self.scores.items():
            value, low, high = (
                "" if number is None else f"{number:.4f}" for number in stamped.score
            )
            interval = f"{low} to {high}" if low and high else ""
            lines.append((key, value, interval, f"{stamped.num_images:,}", stamped.provenance))
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        rows = [
            "  ".join(
                entry.ljust(width) for entry, width in zip(line, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        missing = f"{len(self.holes)} cells are missing." if self.holes else ""
        return "\n".join(
            [f"{self.model.name}: {self.model.preprocessing}", *rows, missing]
        ).rstrip()
