"""``lska-jax publish``: turn a run into a model folder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lska_jax.commands import frame

_DESCRIPTION = """\
Turn a run into a model folder.

Takes the best step of the run's checkpoints (or --step), averaged weights if the run kept them (or
--no-ema), the preprocessing of the run's config and the class names of its data.

With --dtype float16 the weights take half the bytes; they are read as float32 again. What has one
axis, biases and statistics, and what float16 cannot hold stay float32.

With --push the folder goes to the Hugging Face Hub as well, with the account of `hf auth login` or
HF_TOKEN. A model folder in place of a run is pushed as it is, or with --out written anew."""

_EXAMPLES = (
    "lska-jax publish runs/digits --out digits_model",
    "lska-jax publish runs/flowers --out flowers --step latest --license apache-2.0",
    "lska-jax publish runs/flowers --out flowers --push me/flowers --private",
    "lska-jax publish flowers --push me/flowers",
    "lska-jax publish flowers --out flowers16 --dtype float16",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _publish, argv)


def _publish(arguments: argparse.Namespace) -> int | None:
    from lska_jax.weights.in_the_box import find_on_disk
    from lska_jax.weights.model_folder import is_model_folder

    place = find_on_disk(arguments.run) or Path(arguments.run)
    is_folder = is_model_folder(place)
    if is_folder and not (arguments.push or arguments.out):
        raise ValueError(
            f"{arguments.run} is a model folder already; --push NAME puts it online, --out DIR "
            "writes it anew, with --dtype float16 for example."
        )
    if not is_folder and not arguments.out:
        raise ValueError("--out is missing: the model folder to write.")
    status = _write(arguments, place) if arguments.out else None
    if status is None and arguments.push:
        from lska_jax.weights.hub_upload import push_folder

        folder = arguments.out or place
        address = push_folder(folder, arguments.push, is_private=arguments.private)
        print(f"Pushed {folder} to {address}.")
    return status


def _write(arguments: argparse.Namespace, place: Path) -> int | None:
    from lska_jax.training.checkpoint.errors import CheckpointDamaged
    from lska_jax.training.publish import publish
    from lska_jax.weights.class_names import read_names

    try:
        publish(
            place,
            arguments.out,
            use_ema=arguments.ema,
            step=int(arguments.step) if arguments.step.isdecimal() else arguments.step,
            class_names=read_names(arguments.labels) if arguments.labels else None,
            license=arguments.license,
            dtype=arguments.dtype,
            about=arguments.about.read_text("utf-8") if arguments.about else "",
            overwrite=arguments.overwrite,
        )
    except CheckpointDamaged as error:
        return frame.fail(error)
    frame.say_written_model(arguments.out)
    return None


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax publish", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        help="run folder, its checkpoints folder, or one step's folder; or a model folder",
    )
    add("--out", metavar="DIR", help="model folder to write")
    add(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="averaged weights, or the trained ones (default: averaged if the run kept them)",
    )
    add("--step", default="best", metavar="STEP", help="a number, best or latest (default: best)")
    add("--labels", metavar="FILE", help="class names (default: those of the run's data)")
    add(
        "--license",
        metavar="TEXT",
        help="license of the weights (default: unknown, or that of the model folder)",
    )
    add(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="in which the weights are stored (default: float32)",
    )
    add(
        "--about",
        type=Path,
        metavar="FILE",
        help="Markdown to stand in the model card below its table",
    )
    add("--overwrite", action="store_true", help="replace an existing model folder")
    add("--push", metavar="NAME", help="repository on the Hub, NAME or ORG/NAME, to put it in")
    add("--private", action="store_true", help="make a new repository private")
    return parser
