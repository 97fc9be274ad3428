"""How a command that can be resumed comes in: signals are held first, then pages are huge.

In a process that is not ours nothing of that happens, see ``own_process``.
"""

from lska_jax.running import stop_signals
from lska_jax.running.huge_pages import restart_with_huge_pages
from lska_jax.running.own_process import is_own_process


def hold_signals() -> None:
    """Keep signals waiting until ``enter``. For the main module, before anything else."""
    if is_own_process():
        stop_signals.hold_signals()


def enter() -> stop_signals.StopSignals | None:
    """Restart with huge pages, once, and answer signals; None if the process is not ours."""
    restart_with_huge_pages()
    if not is_own_process():
        return None
    signals = stop_signals.StopSignals()
    signals.listen()
    return signals
