"""``lska-jax train``: train a model, or evaluate one of its checkpoints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lska_jax.commands import frame, own_data, several_processes
from lska_jax.commands.config_option import (
    add_config_option,
    change_config,
    find_config,
    read_config,
)
from lska_jax.running.stop_signals import StopSignals

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_DESCRIPTION = """\
Train a model, from a config or on a set of images of your own. Running the same command again
resumes at the latest checkpoint of the workdir.

With --data no config is needed: every setting is chosen for the images, said, and kept in the
workdir's config.json. --config.KEY=VALUE replaces one.

SIGTERM and SIGINT (Ctrl-C) finish the current step, save, and exit with status 75: the same command
continues. A second signal, a second later or more, exits at once."""

_EXAMPLES = (
    "{command} --config digits",
    "{command} --config digits:35 --config.optimizer.epochs=10 --workdir runs/k35",
    "{command} --config van_lska_base:23,trivial --dry_run",
    "{command} --config my/own.py",
    "{command} --data photos --model van_lska_tiny --epochs 20",
    "{command} --data photos --from convnext_tiny.fb_in1k --workdir runs/photos",
    "{command} --config runs/photos/config.json --workdir runs/again",
)


def main(
    argv: Sequence[str] | None = None,
    *,
    command: str = "lska-jax train",
    signals: StopSignals | None = None,
) -> int:
    """Run the command; mistakes in config or data end in one readable message.

    Args:
      argv: without the program's name; None takes this program's.
      command: how the program is called.
      signals: requests to stop, of a process that listens to them; None borrows them.
    """
    return frame.run(_build_parser(command), partial(run, signals=signals), argv)


def run(arguments: argparse.Namespace, *, signals: StopSignals | None) -> int | None:
    """Train or evaluate as parsed arguments say, here or as one of several processes."""
    from lska_jax.training.config_check import check_config, check_sources

    check_config(arguments.config)
    check_sources(
        arguments.config,
        is_training=not arguments.eval_only,
        on_missing=_say_not_checked if arguments.dry_run else None,
    )
    with several_processes.started(arguments, signals) as signals:
        return _work(arguments, signals)


def add_run_options(parser: frame.Parser) -> None:
    """Add the options that training and evaluating have in common."""
    add_config_option(parser)
    parser.read_config = _read_config
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="folder of the run (default: runs/NAME, or runs/NAME-ARGUMENT; of a run's config.json "
        "the folder that it is in)",
    )


def _read_config(
    arguments: argparse.Namespace, words: list[str], command: str
) -> tuple[ConfigDict, list[str]]:
    """Load the config, or make it for --data; an evaluation without both takes the run's own."""
    if own_data.is_asked_for(arguments):
        config = own_data.make_config(arguments)
        return config, change_config(config, words)
    if not arguments.config_place and not arguments.eval_only:
        raise ValueError(
            f"--config is missing, as in: {command} --config configs/digits.py; or, for images of "
            f"your own: {command} --data PHOTOS"
        )
    place = arguments.checkpoint or arguments.workdir
    if arguments.config_place or not (arguments.eval_only and place):
        return read_config(arguments.config_place, words, command)
    from lska_jax.training.model_places import is_run, local_path
    from lska_jax.training.recorded_config import config_of_run

    path = local_path(place)
    if path is None or not is_run(path):
        raise ValueError(
            f"{place} is no run, and does not say which data to evaluate on: give a --config."
        )
    config = config_of_run(path)
    return config, change_config(config, words)


def _say_not_checked(reason: str) -> None:
    print(f"Data not checked: {reason}")


def _work(arguments: argparse.Namespace, signals: StopSignals) -> int | None:
    import jax

    from lska_jax.training.config_check import check_against_devices

    config = arguments.config
    check_against_devices(config, device_count=jax.device_count())
    if arguments.dry_run:
        from lska_jax.training.dry_run import describe_run

        print(describe_run(config, report=frame.remark))
        return None
    workdir = workdir_of(arguments)
    checkpoint = arguments.checkpoint or workdir
    status = _train_or_evaluate(
        config, workdir, checkpoint if arguments.eval_only else None, signals=signals
    )
    if not status and not arguments.eval_only and jax.process_index() == 0:
        if own_data.is_asked_for(arguments):
            own_data.write_page(workdir)
        else:
            print(f"  or look at it: lska-jax report {workdir}", flush=True)
    return status


def workdir_of(arguments: argparse.Namespace) -> Path:
    """Return the folder of the run that a command line is about."""
    if arguments.workdir:
        return Path(arguments.workdir)
    if arguments.config_place:
        return find_config(arguments.config_place).workdir
    if own_data.is_asked_for(arguments):
        return own_data.workdir(arguments.data, arguments.workdir)
    from lska_jax.training.recorded_config import folder_of_run

    return folder_of_run(arguments.checkpoint)


def _train_or_evaluate(
    config: ConfigDict,
    workdir: Path,
    checkpoint: str | Path | None,
    *,
    signals: StopSignals,
) -> int | None:
    from lska_jax.data.loader import ExampleError
    from lska_jax.training.checkpoint.errors import CheckpointDamaged, CheckpointSaveFailed
    from lska_jax.training.evaluate_only import evaluate_checkpoint
    from lska_jax.training.feeding import TrainingStopped
    from lska_jax.training.loop import train
    from lska_jax.training.trainer import Interrupted

    try:
        if checkpoint is None:
            train(config, workdir=workdir, signals=signals)
        else:
            evaluate_checkpoint(config, workdir=workdir, checkpoint=checkpoint, signals=signals)
    except Interrupted as interruption:
        return several_processes.leave_to_resume(str(interruption), signals)
    except (TrainingStopped, CheckpointDamaged, CheckpointSaveFailed, ExampleError) as error:
        print(f"Stopped: {error}", file=sys.stderr, flush=True)
        if isinstance(error, CheckpointSaveFailed):
            # Its writer may be stuck, and Python would wait for that thread.
            os._exit(1)
        return 1
    return None


def _build_parser(command: str) -> frame.Parser:
    parser = frame.make_parser(
        command, _DESCRIPTION, examples=[example.format(command=command) for example in _EXAMPLES]
    )
    add_run_options(parser)
    own_data.add_options(parser)
    parser.add_argument(
        "--dry_run",
        action=frame.Switch,
        help="compile the steps, print sizes and costs, and train nothing",
    )
    parser.add_argument(
        "--eval_only",
        action=frame.Switch,
        help="evaluate a checkpoint and train nothing, as lska-jax evaluate does; without --config "
        "with that of the run",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PLACE",
        help="for --eval_only: a run, a step of it, or another model (default: the workdir)",
    )
    several_processes.add_options(parser)
    return parser
