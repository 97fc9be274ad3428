"""How a command comes in: signals are held first, then the process gets our settings.

In a process that is not ours nothing of that happens, see ``own_process``.
"""

from lska_jax.running import stop_signals
from lska_jax.running.compiler_options import use_compiler_options
from lska_jax.running.huge_pages import restart_with_huge_pages
from lska_jax.running.own_process import is_own_process


def hold_signals() -> None:
    """Keep signals waiting until ``enter``. For the main module, before anything else."""
    if is_own_process():
        stop_signals.hold_signals()


def settle() -> None:
    """Take the compiler's options for this processor, and restart with huge pages, once."""
    use_compiler_options()
    restart_with_huge_pages()


def enter() -> stop_signals.StopSignals | None:
    """Take our settings, and answer signals; None if the process is not ours."""
    settle()
    if not is_own_process():
        return None
    signals = stop_signals.StopSignals()
    signals.listen()
    return signals
