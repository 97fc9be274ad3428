"""Let a program on CPU run in the thread that calls it.

JAX otherwise runs it in a thread of its own, which says that its results are there before it has
given back its temporaries. Where the next call is faster than that, it takes new ones; and where
freed memory stays with the process (``huge_pages``), that is larger from then on by all temporaries
of a step. It happened once or twice in half of the runs, at any step. Waiting costs nothing: no
step overlaps with another on CPU, and examples are read by other threads.
"""

import jax

from lska_jax.running.own_process import is_own_process

# Of programs for one device; JAX runs those for several devices of a CPU side by side.
OPTION = "jax_cpu_enable_async_dispatch"


def use_inline_dispatch() -> None:
    """Set JAX's option in a process that is ours, see ``own_process``.

    Call it before JAX is asked for its devices; it is without effect later.
    """
    if is_own_process():
        jax.config.update(OPTION, False)
