"""``lska-jax find-rate``: which learning rates a run can take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lska_jax.commands import frame, own_data, several_processes, train
from lska_jax.running.stop_signals import StopSignals

_DESCRIPTION = """\
Try learning rates from far too low to far too high, a step each, with the data, the model and the
augmentation of a run; nothing that is trained is kept. Writes rates.csv and rates.png, and suggests
a tenth of the rate at which the loss is lowest."""

_EXAMPLES = (
    "lska-jax find-rate --config digits",
    "lska-jax find-rate --data photos --from convnext_tiny.fb_in1k --workdir runs/photos_rate",
)


def main(argv: Sequence[str] | None = None, *, signals: StopSignals | None = None) -> int:
    """Run the command; a mistake ends in one readable message."""
    return frame.run(_build_parser(), partial(_find, signals=signals), argv)


def _find(arguments: argparse.Namespace, *, signals: StopSignals | None) -> None:
    from lska_jax.training.config_check import check_config, check_sources

    if arguments.low >= arguments.high:
        raise ValueError(
            f"--low {arguments.low:g} must be below --high {arguments.high:g}: the rate grows from "
            "one to the other."
        )
    check_config(arguments.config)
    check_sources(arguments.config, is_training=True)
    out = Path(f"{train.workdir_of(arguments)}{'' if arguments.workdir else '_rate'}")
    with several_processes.started(arguments, signals):
        from lska_jax.training.rate_finder import find_rate

        found = find_rate(
            arguments.config,
            out=out,
            low=arguments.low,
            high=arguments.high,
            steps=arguments.steps,
        )
    print(
        f"The loss is lowest at {found.lowest:.2g}. Suggested: {found.suggested:.2g}, as in "
        f"--config.optimizer.learning_rate={found.suggested:.2g}. Look at {out / 'rates.png'}."
    )


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax find-rate", _DESCRIPTION, examples=_EXAMPLES)
    train.add_run_options(parser)
    own_data.add_options(parser)
    add = parser.add_argument
    add("--low", type=frame.positive(float), default=1e-7, metavar="X", help="default: 1e-7")
    add("--high", type=frame.positive(float), default=1.0, metavar="X", help="default: 1")
    add("--steps", type=frame.positive(int), default=100, metavar="N", help="default: 100")
    several_processes.add_options(parser)
    parser.set_defaults(eval_only=False, dry_run=False, checkpoint=None)
    return parser
