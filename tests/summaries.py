"""Summaries with known numbers, for tests of the report. The numbers are made up."""

from collections.abc import Mapping

from lska_jax.robustness.cells import Cell, Hole, ModelStamp, Score, StampedScore, Summary
from lska_jax.robustness.scores.reference_errors import ALL_CORRUPTIONS

PREPROCESSING = "short side 248 bicubic, crop 224"
WHERE = "get weather.tar from https://zenodo.org/record/2235448"
CLASSES = ("airplane", "bear", "truck")


def stamped(
    value: float | None,
    *,
    half_width: float | None = 0.01,
    provenance: str = "official",
    note: str = "",
    num_images: int = 50_000,
) -> StampedScore:
    """Return a score whose interval reaches as far below the value as above it."""
    is_bare = value is None or half_width is None
    score = Score(value) if is_bare else Score(value, value - half_width, value + half_width)
    return StampedScore(
        score=score,
        provenance=provenance,
        preprocessing=PREPROCESSING,
        num_images=num_images,
        note=note,
    )


def summary(
    name: str,
    scores: Mapping[str, StampedScore | float],
    *,
    holes: Mapping[Cell, str] | None = None,
    **facts: object,
) -> Summary:
    """Return a model's summary; plain numbers stand for official ones with an interval."""
    model = ModelStamp(name=name, sha256="ab" * 32, preprocessing=PREPROCESSING, facts=facts)
    full = {
        key: score if isinstance(score, StampedScore) else stamped(score)
        for key, score in scores.items()
    }
    found = tuple(Hole(cell, reason) for cell, reason in (holes or {}).items())
    return Summary(model=model, scores=full, holes=found)


def corruption_scores(
    set_name: str, error: float, *, provenance: str = "official", with_ce: bool = True
) -> dict[str, StampedScore]:
    """Return errors of all corruptions: ``error`` in the middle, 0.05 more a severity."""
    scores = {}
    for part in ALL_CORRUPTIONS:
        for severity in range(1, 6):
            value = error + 0.05 * (severity - 3)
            scores[f"{set_name}/error/{part}/{severity}"] = stamped(value, provenance=provenance)
        scores[f"{set_name}/error/{part}"] = stamped(error, provenance=provenance)
        if with_ce:
            scores[f"{set_name}/ce/{part}"] = stamped(error / 0.8, provenance=provenance)
    return scores


def full_summary(name: str, accuracy: float, **facts: object) -> Summary:
    """Return a model that every table and picture has something of."""
    error = 1 - accuracy + 0.2
    return summary(
        name,
        {
            "imagenet/top1": accuracy,
            "imagenet_a/top1_200": accuracy - 0.5,
            "imagenet_a/clean_top1_200": accuracy + 0.1,
            "imagenet_sketch/top1": accuracy - 0.4,
            **corruption_scores("imagenet_c", error),
            "imagenet_c/mce_15": error / 0.8,
            "imagenet_c/mce_19": error / 0.8,
            "imagenet_c/mean_error": error,
            "cue_conflict/shape_bias": accuracy - 0.4,
            "cue_conflict/decided": 0.6,
            **{f"cue_conflict/shape_bias/{one}": accuracy - 0.3 for one in CLASSES},
        },
        **facts,
    )


def holed_summary(name: str) -> Summary:
    """Return a model without frost, and so without any mean over ImageNet-C."""
    full = full_summary(name, 0.7)
    scores = {
        key: score
        for key, score in full.scores.items()
        if "frost" not in key and key.count("/") > 1 or not key.startswith("imagenet_c/")
    }
    holes = {Cell("imagenet_c", "frost", severity): WHERE for severity in range(1, 6)}
    return summary(name, scores, holes=holes)


# Two models with a score or two.
TWO = (
    summary("lska", {"imagenet/top1": 0.751, "imagenet_c/mce_15": 0.609, "imagenet/nll": 1.02}),
    summary("lka", {"imagenet/top1": 0.754, "imagenet_c/mce_15": 0.554}),
)
