"""``lska-jax average``: one model whose weights are the mean of several."""

import argparse
from collections.abc import Sequence

from lska_jax.commands import frame

_DESCRIPTION = """\
Average the weights of several models: steps of one run, or runs that started from the same weights.
Architecture, classes and preprocessing have to be the same. It costs nothing when the model is
used, and often gains a little; evaluate the result before you keep it."""

_EXAMPLES = (
    "lska-jax average runs/photos/checkpoints/300 runs/photos/checkpoints/280 --out averaged",
    "lska-jax average runs/seed0 runs/seed1 runs/seed2 --out soup",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), _average, argv)


def _average(arguments: argparse.Namespace) -> None:
    from lska_jax.training.averaging import average_models

    average_models(
        arguments.models, arguments.out, overwrite=arguments.overwrite, report=frame.remark
    )
    frame.say_written_model(arguments.out)


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax average", _DESCRIPTION, examples=_EXAMPLES)
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help=frame.MODEL_PLACES)
    add("--out", required=True, metavar="DIR", help="model folder to write")
    add("--overwrite", action="store_true", help="replace an existing model folder")
    return parser
