"""``lska-jax evaluate``: evaluate a checkpoint without training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lska_jax.commands import frame, several_processes, train
from lska_jax.running.stop_signals import StopSignals

_DESCRIPTION = """\
Evaluate the best step of a run, or another model, on the evaluation split of a config; without
--config on that of the run's own. The result is printed and written to evaluation.json in the
workdir."""

_EXAMPLES = (
    "lska-jax evaluate --checkpoint runs/digits",
    "lska-jax evaluate --config digits:35 --checkpoint runs/k35 --workdir runs/k35_test",
    "lska-jax evaluate --checkpoint runs/own --config.data.eval_split=test",
)


def main(argv: Sequence[str] | None = None, *, signals: StopSignals | None = None) -> int:
    """Run the command; arguments are those of ``train.main``."""
    return frame.run(_build_parser(), partial(train.run, signals=signals), argv)


def _build_parser() -> frame.Parser:
    parser = frame.make_parser("lska-jax evaluate", _DESCRIPTION, examples=_EXAMPLES)
    train.add_run_options(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="PLACE",
        help="a run, a step of it, or another model (default: the workdir)",
    )
    several_processes.add_options(parser)
    parser.set_defaults(eval_only=True, dry_run=False)
    return parser
