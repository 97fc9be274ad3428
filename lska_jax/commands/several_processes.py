"""The options of commands that can be one of several processes, and keep compiled programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lska_jax.commands import frame
from lska_jax.running import stop_signals
from lska_jax.running.stop_signals import StopSignals

_LOST_PROCESS_SECONDS = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``started`` reads."""
    add = parser.add_argument
    add(
        "--compilation_cache",
        metavar="DIR",
        help="folder that keeps compiled programs, or off (default: ~/.cache/lska_jax/xla)",
    )
    group = parser.add_argument_group("several processes")
    add = group.add_argument
    add(
        "--distributed",
        choices=("auto", "on", "off"),
        default="auto",
        help="auto: if a cluster or the next three options describe them (default: auto)",
    )
    add("--coordinator_address", metavar="HOST:PORT", help="of process 0")
    add("--num_processes", type=int, metavar="N", help="how many there are")
    add("--process_id", type=int, metavar="N", help="number of this process, from 0")
    add(
        "--lost_process_seconds",
        type=frame.positive(int),
        default=_LOST_PROCESS_SECONDS,
        metavar="N",
        help="a process that is silent for so long is lost, and the others end "
        f"(default: {_LOST_PROCESS_SECONDS})",
    )


@contextmanager
def started(arguments: argparse.Namespace, signals: StopSignals | None) -> Iterator[StopSignals]:
    """Start jax as the options say, as one of several processes or alone.

    Args:
      arguments: with the options of ``add_options``.
      signals: requests to stop, of a process that listens to them; None borrows them.

    Yields:
      The requests to stop.
    """
    from lska_jax.running import parallel
    from lska_jax.running.borrowed_signals import BorrowedSignals
    from lska_jax.running.inline_dispatch import use_inline_dispatch

    use_inline_dispatch()
    parallel.start_processes(
        coordinator_address=arguments.coordinator_address,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
        distributed=arguments.distributed,
        timeout_seconds=arguments.lost_process_seconds,
    )
    with parallel.leaving_together(), ExitStack() as stack:
        import jax

        from lska_jax.running.compilation_cache import use_compilation_cache

        use_compilation_cache(arguments.compilation_cache)
        if signals is None:
            signals = stack.enter_context(BorrowedSignals())
        if jax.process_count() > 1:
            # One that leaves now would leave the others waiting.
            signals.keep_requests()
        yield signals


def leave_to_resume(message: str, signals: StopSignals) -> int:
    """Say what is saved, and end the process or return the exit status that means "go on"."""
    import jax

    from lska_jax.running.borrowed_signals import BorrowedSignals

    if not isinstance(signals, BorrowedSignals):
        stop_signals.leave_to_resume(message, is_alone=jax.process_count() == 1)
    # The process is not ours to end.
    print(message, file=sys.stderr)
    return stop_signals.RESUME_EXIT_CODE
