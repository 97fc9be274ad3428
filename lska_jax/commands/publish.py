"""``lska-jax publish``: turn a run into a model folder."""

import argparse
from collections.abc import Sequence

from lska_jax.commands import frame

_DESCRIPTION = """\
Turn a run into a model folder.

Takes the best step of the run's checkpoints (or --step), averaged weights if the run kept them (or
--no-ema), the preprocessing of the run's config and the class names of its data."""

_EXAMPLES = (
    "lska-jax publish runs/digits --out digits_model",
    "lska-jax publish runs/flowers --out flowers --step latest --license apache-2.0",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _publish, argv)


def _publish(arguments: argparse.Namespace) -> int | None:
    from lska_jax.training.checkpoint.errors import CheckpointDamaged
    from lska_jax.training.publish import publish
    from lska_jax.weights.class_names import read_names

    try:
        publish(
            arguments.run,
            arguments.out,
            use_ema=arguments.ema,
            step=int(arguments.step) if arguments.step.isdecimal() else arguments.step,
            class_names=read_names(arguments.labels) if arguments.labels else None,
            license=arguments.license,
            overwrite=arguments.overwrite,
        )
    except CheckpointDamaged as error:
        return frame.fail(error)
    frame.say_written_model(arguments.out)
    return None


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax publish", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder, its checkpoints folder, or one step's folder")
    add("--out", required=True, metavar="DIR", help="model folder to write")
    add(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="averaged weights, or the trained ones (default: averaged if the run kept them)",
    )
    add("--step", default="best", metavar="STEP", help="a number, best or latest (default: best)")
    add("--labels", metavar="FILE", help="class names (default: those of the run's data)")
    add("--license", default="unknown", metavar="TEXT", help="license of the weights")
    add("--overwrite", action="store_true", help="replace an existing model folder")
    return parser
