"""What ``lska-jax predict`` does with a detector or a segmentor: pictures, and JSON beside them."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lska_jax.commands import frame

if TYPE_CHECKING:
    from PIL import Image

    from lska_jax.models.heads import Head
    from lska_jax.tasks.predict_label_maps import LabelMapPrediction
    from lska_jax.tasks.predict_objects import ObjectPrediction

SKIPPED_IMAGES = 1
RESULTS_NAME = "predictions.json"
# Of work that was interrupted.
PARTIAL_NAME = "predictions.partial.json"
_LABELS = "_labels"


class _Shown(NamedTuple):
    """What is shown of one image.

    Attributes:
      image: path of the file.
      problem: why there is nothing to show, or "".
      lines: for a person.
      record: for predictions.json.
      draw: returns the pictures, by what is put behind the name of the image.
    """

    image: str
    problem: str
    lines: list[str]
    record: dict[str, Any]
    draw: Callable[[], dict[str, Image.Image]]


def predict_scenes(
    folder: str | Path, images: Sequence[Path], *, head: Head, arguments: argparse.Namespace
) -> int:
    """Say what is in images; print it, or draw it and write it as JSON.

    Args:
      folder: of the model.
      images: files.
      head: of the model.
      arguments: of the command.

    Returns:
      The exit status.

    Raises:
      ValueError: a score that is none.
    """
    from lska_jax.data.class_folders import file_stem
    from lska_jax.running.whole_file import check_writable

    if not 0 <= arguments.least_score <= 1:
        raise ValueError(f"--least_score {arguments.least_score} must be from 0 to 1.")
    out = Path(arguments.out) if arguments.out else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
        # Before the work: a place that cannot be written costs no prediction.
        check_writable(out / RESULTS_NAME)
    is_detector, limit = head.task == "detection", arguments.max_image_pixels
    shown_images = (
        _show_objects(folder, images, limit, least_score=arguments.least_score)
        if is_detector
        else _show_label_maps(folder, images, limit)
    )
    records: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    names: set[str] = set()
    try:
        with frame.progress_bar("predicting", len(images), unit="images") as bar:
            for shown in shown_images:
                if shown.problem:
                    skipped.append({"image": shown.image, "reason": shown.problem})
                elif out:
                    record = {"image": shown.image, **shown.record}
                    records.append(record)
                    name = _free_name(file_stem(Path(shown.image).stem), names)
                    record |= _save(shown.draw(), out, name)
                else:
                    bar.clear()
                    print("\n".join([shown.image, *(shown.lines or ["  nothing"])]), flush=True)
                bar.update()
    finally:
        if out and (records or skipped):
            is_complete = len(records) + len(skipped) == len(images)
            file = out / (RESULTS_NAME if is_complete else PARTIAL_NAME)
            _keep({"model": arguments.model_dir, "predictions": records, "skipped": skipped}, file)
    for broken in skipped:
        print(f"Skipped {broken['image']}: {broken['reason']}", file=sys.stderr)
    if out:
        print(f"Wrote {out}: {len(records)} pictures and {RESULTS_NAME}, {len(skipped)} skipped.")
    return SKIPPED_IMAGES if skipped else 0


def _show_objects(
    folder: str | Path, images: Sequence[Path], max_image_pixels: int, *, least_score: float
) -> Iterator[_Shown]:
    from lska_jax.tasks.pictures.detections import draw_found
    from lska_jax.tasks.predict_objects import predict_objects

    def draw(prediction: ObjectPrediction) -> dict[str, Image.Image]:
        assert prediction.pixels is not None and prediction.found is not None
        found = draw_found(
            prediction.pixels,
            prediction.found,
            class_names=prediction.class_names,
            colours=prediction.colours,
            least_score=least_score,
        )
        return {"": found}

    for prediction in predict_objects(folder, images, max_image_pixels=max_image_pixels):
        if prediction.problem:
            yield _broken(prediction.image, prediction.problem)
            continue
        objects = _objects(prediction)
        lines = [
            f"  {100 * one['score']:5.1f} %  {one['name']} ({one['label']})  "
            + " ".join(f"{side:.0f}" for side in one["box"])
            for one in objects
            if one["score"] >= least_score
        ]
        record = {**_size(prediction), "objects": objects}
        yield _Shown(prediction.image, "", lines, record, functools.partial(draw, prediction))


def _show_label_maps(
    folder: str | Path, images: Sequence[Path], max_image_pixels: int
) -> Iterator[_Shown]:
    import numpy as np
    from PIL import Image

    from lska_jax.tasks.pictures.label_maps import draw_label_map
    from lska_jax.tasks.predict_label_maps import predict_label_maps

    def draw(prediction: LabelMapPrediction) -> dict[str, Image.Image]:
        assert prediction.pixels is not None and prediction.label_map is not None
        shown = draw_label_map(
            prediction.pixels,
            prediction.label_map,
            class_names=prediction.class_names,
            colours=prediction.colours,
        )
        return {"": shown, _LABELS: Image.fromarray(prediction.label_map)}

    for prediction in predict_label_maps(folder, images, max_image_pixels=max_image_pixels):
        if prediction.label_map is None:
            yield _broken(prediction.image, prediction.problem)
            continue
        counts = np.bincount(prediction.label_map.ravel())
        classes = [
            {
                "label": label,
                "name": prediction.class_names[label],
                "part": int(counts[label]) / prediction.label_map.size,
            }
            for label in np.argsort(-counts, kind="stable").tolist()
            if counts[label]
        ]
        lines = [f"  {100 * one['part']:5.1f} %  {one['name']} ({one['label']})" for one in classes]
        record = {**_size(prediction), "classes": classes}
        yield _Shown(prediction.image, "", lines, record, functools.partial(draw, prediction))


def _broken(image: str, problem: str) -> _Shown:
    return _Shown(image, problem, [], {}, dict)


def _size(prediction: ObjectPrediction | LabelMapPrediction) -> dict[str, int]:
    assert prediction.pixels is not None
    height, width = prediction.pixels.shape[:2]
    return {"height": height, "width": width}


def _objects(prediction: ObjectPrediction) -> list[dict[str, Any]]:
    """Return every object that was found; boxes are x1 y1 x2 y2 in pixels of the image."""
    assert prediction.found is not None
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
    return objects


def _keep(record: dict[str, Any], file: Path) -> None:
    """Write what was predicted, or print it if that fails."""
    from lska_jax.running.whole_file import write_whole

    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    try:
        write_whole(file, text)
    except OSError:
        print(text, flush=True)
        raise


def _save(pictures: dict[str, Image.Image], out: Path, name: str) -> dict[str, str]:
    """Write pictures and return their names, as "picture" and "labels"."""
    from lska_jax.running.whole_file import whole_file

    files = {}
    for ending, picture in pictures.items():
        file = f"{name}{ending}.png"
        with whole_file(out / file) as beside:
            picture.save(beside)
        files[ending.removeprefix("_") or "picture"] = file
    return files


def _free_name(stem: str, taken: set[str]) -> str:
    """Return a name for pictures that no other image has taken, nor the label map of one."""
    name, number = stem, 1
    while taken & (own := {name, f"{name}{_LABELS}"}):
        number += 1
        name = f"{stem}_{number}"
    taken |= own
    return name
