"""``lska-jax predict``: classify images with a model folder, or find what is in them."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lska_jax.commands import frame
from lska_jax.commands.predict_scenes import SKIPPED_IMAGES, predict_scenes

if TYPE_CHECKING:
    from lska_jax.tasks.predict import Prediction

_DESCRIPTION = """\
Classify images with a model folder, or with the best step of a run.

An IMAGE may be a folder, which is searched at any depth. Images are prepared as the model folder's
preprocessing says. The five best classes of each image are printed, or written with --output as CSV
(one row per class) or JSON. Broken images are named and skipped; the exit status is then 1.

--engine onnxruntime or openvino runs the network instead of JAX; MODEL may then be a file that
lska-jax export wrote, MODEL.onnx. A folder is exported anew at each start, which takes seconds.

What a detector finds, and the classes of a segmentor's pixels, are printed, or with --out drawn
over the images and written as JSON."""

_EXAMPLES = (
    "lska-jax predict lska_35 cat.jpg",
    "lska-jax predict runs/flowers photos/ --top 1 --output flowers.csv",
    "lska-jax predict lska_35.onnx photos/ --engine onnxruntime",
    "lska-jax predict runs/coco street.jpg --out found",
)

OUTPUT_SUFFIXES = (".csv", ".json")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _predict, argv)


def _predict(arguments: argparse.Namespace) -> int:
    from lska_jax.models.heads import head_of
    from lska_jax.tasks.engines import JAX, check_engine, is_onnx_file
    from lska_jax.tasks.predict import find_images
    from lska_jax.training.model_places import as_model_folder
    from lska_jax.weights.model_folder import read_facts

    output = Path(arguments.output) if arguments.output else None
    if output:
        _check_output(output)
    images = find_images(arguments.images)
    check_engine(arguments.engine)
    frame.settle_jax()
    if is_onnx_file(arguments.model_dir):
        return _classify(arguments.model_dir, images, output=output, arguments=arguments)
    with as_model_folder(arguments.model_dir, report=frame.remark) as folder:
        if head := head_of(read_facts(folder).config):
            if output:
                raise ValueError(f"--output is for classes; give {head.title} --out DIR.")
            if arguments.engine != JAX:
                raise ValueError(f"--engine is for classifiers; JAX runs {head.title}.")
            return predict_scenes(folder, images, head=head, arguments=arguments)
        if arguments.out:
            raise ValueError(
                "--out is for detectors and segmentors; a classifier's --output names a file."
            )
        return _classify(folder, images, output=output, arguments=arguments)


def _classify(
    model: str | Path, images: list[Path], *, output: Path | None, arguments: argparse.Namespace
) -> int:
    predictions: list[Prediction] = []
    # Opened before the work: a place that cannot be written costs no prediction.
    with _opened(output) if output else nullcontext() as file:
        try:
            for prediction in _show_progress(model, images, arguments, is_printing=not output):
                predictions.append(prediction)
        finally:
            if file is not None and output is not None and predictions:
                is_complete = len(predictions) == len(images)
                written = output if is_complete else output.with_stem(f"{output.stem}.partial")
                _keep(file, written, predictions, arguments.model_dir)
    broken = [prediction for prediction in predictions if prediction.problem]
    for prediction in broken:
        print(f"Skipped {prediction.image}: {prediction.problem}", file=sys.stderr)
    if output:
        print(f"Wrote {output}: {len(predictions) - len(broken)} images, {len(broken)} skipped.")
    return SKIPPED_IMAGES if broken else 0


def _show_progress(
    model: str | Path, images: list[Path], arguments: argparse.Namespace, *, is_printing: bool
) -> Iterator[Prediction]:
    from lska_jax.tasks.predict import predict

    with frame.progress_bar("predicting", len(images), unit="images") as bar:
        for prediction in predict(
            model,
            images,
            top=arguments.top,
            batch_size=arguments.batch_size,
            views=arguments.views,
            max_image_pixels=arguments.max_image_pixels,
            engine=arguments.engine,
        ):
            if is_printing and prediction.scores:
                bar.clear()
                print(_readable(prediction), flush=True)
            bar.update()
            yield prediction


def _readable(prediction: Prediction) -> str:
    lines = [
        f"  {100 * score.probability:5.1f} %  {score.name} ({score.label})"
        for score in prediction.scores
    ]
    return "\n".join([prediction.image, *lines])


def _check_output(output: Path) -> None:
    if output.suffix.lower() not in OUTPUT_SUFFIXES:
        raise ValueError(f"--output {output} must end in {' or '.join(OUTPUT_SUFFIXES)}.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {output.parent} for --output.")
    if output.is_dir():
        raise IsADirectoryError(f"--output {output} is a folder; name a file.")


@contextmanager
def _opened(output: Path) -> Iterator[TextIO]:
    """Open a temporary file beside the output; it is gone afterwards, unless it was kept."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    # Names of files need not be text; what is none is written escaped.
    try:
        file = temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        # Nobody knows the other name.
        raise OSError(error.errno, error.strerror, str(output)) from None
    with file:
        try:
            yield file
        finally:
            temporary.unlink(missing_ok=True)


def _keep(file: TextIO, output: Path, predictions: Sequence[Prediction], model: str) -> None:
    """Write predictions into the opened file and put it in place, or print them if that fails."""
    try:
        if output.suffix.lower() == ".csv":
            writer = csv.writer(file)
            writer.writerow(["image", "rank", "label", "name", "probability"])
            for prediction in predictions:
                for rank, score in enumerate(prediction.scores, 1):
                    writer.writerow([prediction.image, rank, *score])
        else:
            json.dump(_to_json(predictions, model), file, indent=2, ensure_ascii=False)
            file.write("\n")
        file.flush()
        os.replace(file.name, output)
    except OSError:
        print(*map(_readable, predictions), sep="\n", flush=True)
        raise


def _to_json(predictions: Sequence[Prediction], model: str) -> dict[str, Any]:
    return {
        "model": model,
        "predictions": [
            {"image": p.image, "top": [score._asdict() for score in p.scores]}
            for p in predictions
            if not p.problem
        ],
        "skipped": [{"image": p.image, "reason": p.problem} for p in predictions if p.problem],
    }


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax predict", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("model_dir", metavar="MODEL", help=frame.MODEL_PLACES)
    add("images", nargs="+", metavar="IMAGE", help="image files and folders of them")
    add("--top", type=int, default=5, metavar="N", help="classes per image (default: 5)")
    add("--batch_size", type=int, default=32, metavar="N", help="images at once (default: 32)")
    add(
        "--views",
        choices=("one", "flip", "ten"),
        default="one",
        help="average over the image and its mirror image, or over ten crops (default: one)",
    )
    add(
        "--engine",
        choices=("jax", "onnxruntime", "openvino"),
        default="jax",
        help="what runs the network; all but jax need their package (default: jax)",
    )
    add("--output", metavar="FILE", help="file to write, .csv or .json")
    frame.add_max_image_pixels(parser)
    add("--out", metavar="DIR", help="of a detector or segmentor: folder for pictures and JSON")
    add(
        "--least_score",
        type=float,
        default=0.3,
        metavar="S",
        help="of a detector: of what is drawn and printed, 0 to 1 (default: 0.3)",
    )
    return parser
