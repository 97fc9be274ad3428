"""Train, or evaluate, a model: ``python train.py --config configs/digits.py``.

Running the same command again resumes at the latest checkpoint of the workdir. Any value of the
config can be replaced: ``--config.optimizer.learning_rate=1e-3``.

SIGTERM and SIGINT (Ctrl-C) finish the step in hand, save and leave with exit code 75: the same
command goes on. A second one, a second later, leaves at once.
"""

from lska_jax.running import stop_signals

if __name__ == "__main__":
    # Before anything else: a preempted machine does not wait for imports.
    stop_signals.hold_signals()

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from lska_jax.commands import command_line
from lska_jax.running.huge_pages import restart_with_huge_pages
from lska_jax.training import config_check

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, see configs/.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run. Default: runs/NAME-OF-THE-CONFIG."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Build abstractly, compile, print sizes and costs, train nothing."
)
_EVAL_ONLY = flags.DEFINE_bool("eval_only", False, "Evaluate a checkpoint, train nothing.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "For --eval_only: run folder or step folder. Default: the workdir."
)
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "Several processes: where a cluster or the three flags describe them, always, never.",
)
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the run has.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
_LOST_PROCESS_SECONDS = flags.DEFINE_integer(
    "lost_process_seconds",
    60,
    "A process that is silent for so long is lost, and the others end.",
    lower_bound=1,
)
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder that keeps compiled programs, or off. Default: ~/.cache/lska_jax/xla.",
)

_signals = stop_signals.StopSignals()


def main(argv: list[str]) -> None:
    """Run what the flags say; mistakes in config or data end in one readable message."""
    logging.set_verbosity(logging.WARNING)
    if len(argv) > 1:
        command_line.fail(f"Unexpected arguments {argv[1:]}; every option starts with --.")
    try:
        config = _CONFIG.value
        config_check.check_config(config)
        _check_data(config)
        _run(config)
    except (ValueError, OSError) as error:
        command_line.fail(str(error))


def _run(config: ConfigDict) -> None:
    from lska_jax.running import parallel

    parallel.start_processes(
        coordinator_address=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        distributed=_DISTRIBUTED.value,
        timeout_seconds=_LOST_PROCESS_SECONDS.value,
    )
    with parallel.leaving_together():
        _work(config)


def _work(config: ConfigDict) -> None:
    import jax

    from lska_jax.running.compilation_cache import use_compilation_cache

    use_compilation_cache(_COMPILATION_CACHE.value)
    if jax.process_count() > 1:
        # One that leaves now would leave the others waiting.
        _signals.keep_requests()
    config_check.check_against_devices(config, device_count=jax.device_count())
    workdir = Path(_WORKDIR.value or f"runs/{command_line.config_name(sys.argv)}")
    if _DRY_RUN.value:
        from lska_jax.training.dry_run import describe_run

        print(describe_run(config))
    else:
        _train_or_evaluate(config, workdir)


def _train_or_evaluate(config: ConfigDict, workdir: Path) -> None:
    import jax

    from lska_jax.data.loader import ExampleError
    from lska_jax.training.checkpoint.checkpointer import CheckpointDamaged, CheckpointSaveFailed
    from lska_jax.training.evaluate_only import evaluate_checkpoint
    from lska_jax.training.feeding import TrainingStopped
    from lska_jax.training.loop import Interrupted, train

    try:
        if _EVAL_ONLY.value:
            evaluate_checkpoint(
                config,
                workdir=workdir,
                checkpoint=_CHECKPOINT.value or workdir,
                signals=_signals,
            )
        else:
            train(config, workdir=workdir, signals=_signals)
    except Interrupted as interruption:
        stop_signals.leave_to_resume(str(interruption), is_alone=jax.process_count() == 1)
    except (TrainingStopped, CheckpointDamaged, CheckpointSaveFailed, ExampleError) as error:
        print(f"Stopped: {error}", file=sys.stderr, flush=True)
        if isinstance(error, CheckpointSaveFailed):
            # Its writer may be stuck, and Python would wait for that thread.
            os._exit(1)
        sys.exit(1)


def _check_data(config: ConfigDict) -> None:
    """Compare config and data before jax is imported: cheap, and most mistakes are here."""
    config_check.check_sources(
        config,
        is_training=not _EVAL_ONLY.value,
        on_missing=(lambda reason: print(f"Data not checked: {reason}"))
        if _DRY_RUN.value
        else None,
    )


if __name__ == "__main__":
    restart_with_huge_pages()
    _signals.listen()
    app.run(main, flags_parser=command_line.parse_flags)
