"""What ``lska-jax predict`` does with a detector: pictures, and JSON beside them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lska_jax.commands import frame

if TYPE_CHECKING:
    from lska_jax.models.heads import Head
    from lska_jax.tasks.predict_objects import ObjectPrediction

SKIPPED_IMAGES = 1
RESULTS_NAME = "predictions.json"


def predict_scenes(
    folder: str | Path, images: Sequence[Path], *, head: Head, arguments: argparse.Namespace
) -> int:
    """Find objects in images; print them, or draw them and write them as JSON.

    Args:
      folder: of the model.
      images: files.
      head: of the model.
      arguments: of the command.

    Returns:
      The exit status.

    Raises:
      ValueError: a network of another task, or a score that is none.
    """
    from lska_jax.running.whole_file import write_whole
    from lska_jax.tasks.predict_objects import predict_objects

    if head.task != "detection":
        raise ValueError(f"lska-jax predict shows what detectors find; {head.title} is none.")
    if not 0 <= arguments.least_score <= 1:
        raise ValueError(f"--least_score {arguments.least_score} must be from 0 to 1.")
    out = Path(arguments.out) if arguments.out else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    pictures: set[str] = set()
    with frame.progress_bar("predicting", len(images), unit="images") as bar:
        for prediction in predict_objects(folder, images):
            if prediction.problem:
                skipped.append({"image": prediction.image, "reason": prediction.problem})
            elif out:
                picture = _free_name(Path(prediction.image).stem, pictures)
                _draw(prediction, out / picture, least_score=arguments.least_score)
                entries.append(_to_json(prediction, picture))
            else:
                bar.clear()
                print(_readable(prediction, least_score=arguments.least_score), flush=True)
            bar.update()
    for broken in skipped:
        print(f"Skipped {broken['image']}: {broken['reason']}", file=sys.stderr)
    if out:
        record = {"model": arguments.model_dir, "predictions": entries, "skipped": skipped}
        write_whole(out / RESULTS_NAME, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        print(f"Wrote {out}: {len(entries)} pictures and {RESULTS_NAME}, {len(skipped)} skipped.")
    return SKIPPED_IMAGES if skipped else 0


def _draw(prediction: ObjectPrediction, file: Path, *, least_score: float) -> None:
    from lska_jax.running.whole_file import whole_file
    from lska_jax.tasks.pictures.detections import draw_found

    assert prediction.pixels is not None and prediction.found is not None
    picture = draw_found(
        prediction.pixels,
        prediction.found,
        class_names=prediction.class_names,
        least_score=least_score,
    )
    with whole_file(file) as beside:
        picture.save(beside)


def _free_name(stem: str, taken: set[str]) -> str:
    """Return a name for a picture that no other image has taken."""
    name, number = f"{stem}.png", 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}.png"
    taken.add(name)
    return name


def _to_json(prediction: ObjectPrediction, picture: str) -> dict[str, Any]:
    """Return every object that was found; boxes are x1 y1 x2 y2 in pixels of the image."""
    assert prediction.pixels is not None and prediction.found is not None
    found = prediction.found
    objects: list[dict[str, Any]] = [
        {
            "label": int(label),
            "name": prediction.class_names[int(label)],
            "score": float(score),
            "box": [float(side) for side in box],
        }
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]
    for one, mask in zip(objects, found.masks or (), strict=False):
        one["mask"] = mask
    height, width = prediction.pixels.shape[:2]
    image = {"image": prediction.image, "picture": picture, "height": height, "width": width}
    return {**image, "objects": objects}


def _readable(prediction: ObjectPrediction, *, least_score: float) -> str:
    assert prediction.found is not None
    found = prediction.found
    lines = [
        f"  {100 * float(score):5.1f} %  {prediction.class_names[int(label)]} ({int(label)})  "
        + " ".join(f"{float(side):.0f}" for side in box)
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
        if score >= least_score
    ]
    return "\n".join([prediction.image, *(lines or ["  nothing"])])
