"""``lska-jax robustness``: measure models on corrupted and shifted image sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lska_jax.commands import frame, several_processes
from lska_jax.running.stop_signals import StopRequested, StopSignals

if TYPE_CHECKING:
    from lska_jax.robustness.sweep.plan import SweepOptions

_DESCRIPTION = """\
Measure models on corrupted and shifted image sets, and write a report of tables and pictures.

Models of ImageNet's classes are measured on the sets of the paper. A set that is missing is named
with where to get it, and stays a hole in the report. With --generate ImageNet-C is made from the
clean images on the device; that needs no download, and works for other data too.

Without any data, "--model cifar10 --suite smoke" measures the model that comes with the package on
drawings of its classes: that everything runs, and no more.

Segmentors, detectors and classifiers of any number of labels an image are measured on their own
validation images, given with --clean, and on corruptions of them: --suite imagenet,imagenet_c
--generate.

Running the same command again continues where it was stopped. SIGTERM and SIGINT (Ctrl-C) exit with
status 75, which says so; every finished cell is in the results file."""

_EXAMPLES = (
    "{command} --model lska_35 --suite paper --data_root DATA --out robustness",
    "{command} --model a=lska_23 --model b=lska_35    # compared in one report",
    "{command} --model runs/cifar10 --suite imagenet,imagenet_c --generate \\",
    "    --clean folder:cifar10.tar --clean_split test",
    "{command} --model cifar10 --suite smoke    # needs no data",
    "{command} --list                         # the sets, and where to get them",
    "{command} --list imagenet_c",
    "{command} --sheet photo.jpg --out sheet.png    # what the corruptions look like",
)
_DEFAULT_OUT = "robustness"
_STAND_INS = (
    "No images are given: drawings of the ten classes stand in for photographs, as with --clean "
    "drawings --clean_split test --generate. That shows that all runs, and no more."
)
_SHEET_PIXELS = 224


def main(
    argv: Sequence[str] | None = None,
    *,
    command: str = "lska-jax robustness",
    signals: StopSignals | None = None,
) -> int:
    """Run the command; a mistake ends in one readable message.

    Args:
      argv: without the program's name; None takes this program's.
      command: how the program is called.
      signals: requests to stop, of a process that listens to them; None borrows them.
    """
    return frame.run(_build_parser(command), partial(_run, signals=signals), argv)


def _run(arguments: argparse.Namespace, *, signals: StopSignals | None) -> int | None:
    if arguments.list is not None:
        _list_sets(arguments.list)
        return None
    if arguments.sheet:
        _draw_sheet(arguments)
        return None
    if not arguments.model:
        raise ValueError("--model is missing, as in: lska-jax robustness --model MODEL_FOLDER")
    with several_processes.started(arguments, signals) as signals:
        return _sweep(arguments, signals)


def _list_sets(names: Sequence[str]) -> None:
    from lska_jax.robustness.sets.listing import describe_all, describe_set

    print("\n\n".join(map(describe_set, names)) if names else describe_all())


def _draw_sheet(arguments: argparse.Namespace) -> None:
    import numpy as np
    from PIL import Image, ImageOps

    from lska_jax.data.decode import decode_rgb
    from lska_jax.data.plain_file import read_plain_file
    from lska_jax.data.sources import BrokenImage
    from lska_jax.robustness.corruptions import frost_is_comparable, load_frost_pictures
    from lska_jax.robustness.corruptions.sheet import sample_sheet
    from lska_jax.running.whole_file import whole_file

    out = Path(arguments.out)
    out = out if out.suffix else out / "sheet.png"
    if out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--out {out} names no format of pictures; give it .png, for example.")
    frost = load_frost_pictures(arguments.frost_pictures) if arguments.frost_pictures else None
    if not frost_is_comparable(frost):
        print("The frost is drawn, not the benchmark's: it is not comparable.")
    photos = []
    for place in arguments.sheet:
        try:
            photo = decode_rgb(read_plain_file(place), max_pixels=arguments.max_image_pixels)
        except BrokenImage as error:
            raise ValueError(f"{place} cannot be read: {error}.") from error
        square = ImageOps.fit(Image.fromarray(photo), (_SHEET_PIXELS, _SHEET_PIXELS))
        photos.append(np.asarray(square))
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as beside:
        # Before the work, which takes a minute: a place that cannot be written costs none.
        beside.touch()
        sample_sheet(np.stack(photos), seed=arguments.seed, frost_pictures=frost).save(beside)
    print(f"Wrote {out}.")


def _sweep(arguments: argparse.Namespace, signals: StopSignals) -> int | None:
    from lska_jax.robustness.report.terminal import terminal_table
    from lska_jax.robustness.report.write import write_report
    from lska_jax.robustness.sweep.classifier import load_classifier
    from lska_jax.robustness.sweep.dense import dense_sweep
    from lska_jax.robustness.sweep.dense_models import load_dense, task_of_model
    from lska_jax.robustness.sweep.plan import SweepOptions
    from lska_jax.robustness.sweep.run import RESULTS_NAME, sweep
    from lska_jax.robustness.sweep.samples import SHEET_NAME
    from lska_jax.robustness.sweep.stand_ins import with_drawings
    from lska_jax.robustness.sweep.summary import load_summaries
    from lska_jax.running import parallel

    options = SweepOptions(
        suite=arguments.suite,
        data_root=arguments.data_root,
        provenance=arguments.provenance,
        generate=arguments.generate,
        clean=arguments.clean,
        clean_split=arguments.clean_split,
        corrupted=arguments.corrupted,
        pixels=arguments.pixels,
        limit=arguments.limit,
        seed=arguments.seed,
        frost_pictures=arguments.frost_pictures,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        max_image_pixels=arguments.max_image_pixels,
    )
    named = [split_name(model) for model in arguments.model]
    is_dense = {task_of_model(place) != "classification" for _, place in named}
    if len(is_dense) > 1:
        raise ValueError("Classifiers and other models are measured in sweeps of their own.")
    try:
        if is_dense == {True}:
            scenes = [load_dense(place, name=name) for name, place in named]
            signals.keep_requests()
            dense_sweep(scenes, options, out=arguments.out, signals=signals)
        else:
            classifiers = [load_classifier(place, name=name) for name, place in named]
            given, options = options, with_drawings(options, classifiers)
            if options is not given:
                frame.remark(_STAND_INS)
            signals.keep_requests()
            sweep(classifiers, options, out=arguments.out, signals=signals)
    except StopRequested:
        message = "Interrupted: every cell that is done is in the results file."
        return several_processes.leave_to_resume(message, signals)
    if parallel.is_main_process():
        out = Path(arguments.out)
        # Of all models that were measured there, at any time.
        summaries = load_summaries(out / RESULTS_NAME)
        print(terminal_table(summaries))
        sheet = out / SHEET_NAME
        page = write_report(
            summaries,
            out / "report",
            sample_sheet=sheet if sheet.is_file() else None,
            conditions=_conditions(options),
        )
        print(f"Wrote {page}")
    return None


def _conditions(options: SweepOptions) -> dict[str, str]:
    """Return what the report says above everything."""
    images = f"at most {options.limit:,}" if options.limit else "all"
    conditions = {"Suite": str(options.suite), "Images of a cell": images}
    if options.clean:
        conditions["Clean images"] = f"{options.clean}, split {options.clean_split}"
    if options.corrupted:
        conditions["Corrupted images"] = options.corrupted
    return conditions


def split_name(model: str) -> tuple[str | None, str]:
    """Split NAME=PLACE; a path that is there, or a name with a slash, is all place."""
    name, equals, place = model.partition("=")
    if equals and name and "/" not in name and not Path(model).exists():
        return name, place
    return None, model


def _build_parser(command: str) -> frame.Parser:
    parser = frame.make_parser(
        command, _DESCRIPTION, examples=[example.format(command=command) for example in _EXAMPLES]
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        metavar="[NAME=]PLACE",
        help=f"{frame.MODEL_PLACES}; may be given several times",
    )
    add("--suite", default="paper", help="paper, full, smoke, or sets with commas (default: paper)")
    add("--data_root", metavar="DIR", help="folder of the sets, official or TFDS (default: TFDS's)")
    add(
        "--provenance",
        default="auto",
        help="official, tfds, or auto: official if it is there (default: auto)",
    )
    add("--generate", action="store_true", help="make ImageNet-C from the clean images")
    add(
        "--clean",
        default="",
        metavar="SOURCE",
        help="clean images: digits, drawings, folder:PATH or tfds:NAME (default: ImageNet)",
    )
    add(
        "--clean_split",
        default="validation",
        metavar="SPLIT",
        help="split of --clean (default: validation)",
    )
    add(
        "--corrupted",
        default="",
        metavar="PLACE",
        help="corrupted images of a model's own classes, in place of --generate: "
        "CORRUPTION/SEVERITY/CLASS folders or a tar of them, or CIFAR-10-C's .npy files",
    )
    add(
        "--pixels",
        default="direct",
        help="direct shows images that are stored at 224 pixels as they are; resize treats them "
        "as photos (default: direct)",
    )
    add("--limit", type=int, default=0, metavar="N", help="images per cell; 0 for all (default: 0)")
    add("--seed", type=int, default=0, metavar="N", help="of corruptions and --limit (default: 0)")
    add("--frost_pictures", default="", metavar="DIR", help="the benchmark's own pictures of frost")
    add("--batch_size", type=int, default=256, metavar="N", help="over all devices (default: 256)")
    add(
        "--num_workers",
        type=int,
        default=-1,
        metavar="N",
        help="decoding processes (default: by the number of cores)",
    )
    frame.add_max_image_pixels(parser)
    add(
        "--out",
        default=_DEFAULT_OUT,
        metavar="DIR",
        help=f"where to write (default: {_DEFAULT_OUT})",
    )
    several_processes.add_options(parser)
    other = parser.add_argument_group("instead of a sweep")
    other.add_argument(
        "--list", nargs="*", metavar="SET", help="describe the sets, or some of them"
    )
    other.add_argument(
        "--sheet", nargs="+", metavar="PHOTO", help="draw every corruption of photos into --out"
    )
    return parser
