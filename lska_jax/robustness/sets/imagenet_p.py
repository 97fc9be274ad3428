"""ImageNet-P: videos in which an image is perturbed more and more, or anew in every frame."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from lska_jax.data.class_folders import IMAGE_SUFFIXES
from lska_jax.robustness.cells import Cell, Outcomes
from lska_jax.robustness.scores.corruption_error import MissingCells
from lska_jax.robustness.scores.over_cells import mean_over_cells, stamp, value_of
from lska_jax.robustness.scores.perturbation import (
    PERTURBATIONS,
    flip_probabilities,
    is_noise,
    mean_over_perturbations,
    top5_distances,
)
from lska_jax.robustness.scores.scorer import (
    CellsOfSet,
    ClassSubset,
    OverCells,
    ScoredCell,
    Scorer,
    mean_score,
)
from lska_jax.robustness.sets.imagenet_c import ARCHIVE_OF, HENDRYCKS_2019
from lska_jax.robustness.sets.layouts import folders_of_parts
from lska_jax.robustness.sets.record import FoundFiles, ImageSet, Opened
from lska_jax.robustness.sets.video import VideoSource

_VIDEO_SUFFIXES = (".mp4",)
_ARCHIVES = ("noise", "blur", "weather", "digital")
_NUMBER = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceScorer(Scorer):
    """How often and how far the answer flips between frames."""

    headlines: tuple[str, ...] = ("flip_probability",)

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
        """Score the sequences that have all their frames; see ``Scorer``."""
        order, shape = _whole_sequences(extra)
        # Logits that are not finite are classes of their own.
        known = int(max(outcomes.prediction.max(), outcomes.top5.max())) + 1
        unknown = known + np.arange(outcomes.top5.shape[1])
        classes = known + len(unknown)
        predictions = np.where(outcomes.prediction < 0, known, outcomes.prediction)
        top5 = np.where(outcomes.top5 < 0, unknown, outcomes.top5)
        flips = flip_probabilities(
            predictions[order, 0].reshape(shape), noise=is_noise(cell.part), num_classes=classes
        )
        distances = top5_distances(
            top5[order].reshape(*shape, -1), noise=is_noise(cell.part), num_classes=classes
        )
        of_videos = {"flip_probability": flips, "top5_distance": distances}
        return ScoredCell(
            {key: mean_score(values) for key, values in of_videos.items()},
            {key: values.astype(np.float32) for key, values in of_videos.items()},
        )

    def score_set(self, name: str, of_set: CellsOfSet, *, cells: CellsOfSet) -> OverCells:
        """Average over the perturbations of the benchmark; see ``Scorer``."""
        scores = {}
        for key in ("flip_probability", "top5_distance"):
            values = {cell.part: value_of(result, key) for cell, result in of_set.items()}
            value = mean_over_perturbations(values, score=key)
            if not isinstance(value, MissingCells):
                used = list(of_set.values())
                scores[f"{name}/{key}"] = stamp(mean_over_cells(value, used, key), used)
        return OverCells(scores)


def open_sequences(found: FoundFiles) -> Opened:
    """Open videos, or folders of frames where there are no videos."""
    is_video = np.array([name.lower().endswith(_VIDEO_SUFFIXES) for name in found.names])
    if not is_video.any():
        return _open_frames(found)
    videos = [name for name, video in zip(found.names, is_video, strict=True) if video]
    source = VideoSource(
        f"video:{found.place.name}",
        found.place.tree.choose(found.place.inner, videos),
        found.labels[is_video],
        found.classes.class_names(),
    )
    frames = source.frames_per_video
    extra = {
        "sequence": np.repeat(np.arange(len(videos), dtype=np.int32), frames),
        "frame": np.tile(np.arange(frames, dtype=np.int32), len(videos)),
    }
    return source, extra


def _open_frames(found: FoundFiles) -> Opened:
    """Open sequences that are folders, frames in the order of the numbers in their names."""
    order = sorted(range(len(found.names)), key=lambda index: _natural(found.names[index]))
    found = found._replace(names=[found.names[i] for i in order], labels=found.labels[order])
    folders = [name.rpartition("/")[0] for name in found.names]
    if loose := next((folder for folder in folders if "/" not in folder), None):
        raise ValueError(
            f"{found.place.name}/{loose} holds images of no sequence; frames are expected as "
            "WNID/SEQUENCE/FRAME.png, or videos as WNID/*.mp4."
        )
    sequences, sequence, counts = np.unique(folders, return_inverse=True, return_counts=True)
    if len(np.unique(counts)) > 1:
        short, usual = int(counts.argmin()), int(np.median(counts))
        raise ValueError(
            f"{found.place.name}/{sequences[short]} has {counts[short]} frames, others {usual}; "
            "all sequences must have as many."
        )
    frame = np.tile(np.arange(counts[0], dtype=np.int32), len(counts))
    return found.source(), {"sequence": sequence.astype(np.int32), "frame": frame}


def _whole_sequences(extra: Mapping[str, np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the images of whole sequences, frames in order, and how many (V, F) they are.

    Raises:
      ValueError: no sequence is whole, or they have no common length of at least two.
    """
    sequence, length = extra["sequence"], extra["sequence_length"]
    order = np.lexsort((extra["frame"], sequence))
    _, counts = np.unique(sequence, return_counts=True)
    # A video without one of its frames would compare frames that are not neighbours.
    is_whole = counts == length[order][np.cumsum(counts) - 1]
    if not is_whole.any():
        raise ValueError("No sequence has all its frames: some of each cannot be read.")
    lengths = np.unique(counts[is_whole])
    if len(lengths) > 1 or lengths[0] < 2:
        raise ValueError(
            f"Sequences have {', '.join(map(str, lengths))} frames; all must have the same number, "
            "2 or more."
        )
    return order[np.repeat(is_whole, counts)], (int(is_whole.sum()), int(lengths[0]))


def _natural(name: str) -> tuple[str, list[int], str]:
    """Order by folder, then by the numbers in the file's name."""
    folder, _, file = name.rpartition("/")
    return folder, [int(number) for number in _NUMBER.findall(file)], file


def _archives_of(part: str) -> tuple[str, ...]:
    # Perturbations that ImageNet-C does not have are geometry. The likely archive is read first.
    likely = ARCHIVE_OF.get(part, "digital")
    return (likely, *(archive for archive in _ARCHIVES if archive != likely))


IMAGENET_P = ImageSet(
    name="imagenet_p",
    title="ImageNet-P",
    label_space="1000 classes",
    parts=PERTURBATIONS,
    citation=HENDRYCKS_2019,
    where="https://zenodo.org/record/3565846",
    num_images=50_000,
    unit="sequences",
    stored_size=224,
    layout="imagenet-p/PERTURBATION/WNID/*.mp4, or blur.tar, digital.tar, noise.tar and "
    "weather.tar as they are in a folder imagenet-p",
    note="videos; reading them needs the extra 'video'",
    places=folders_of_parts("imagenet-p", groups=_archives_of),
    suffixes=IMAGE_SUFFIXES + _VIDEO_SUFFIXES,
    open_files=open_sequences,
    scorer=SequenceScorer(),
)
