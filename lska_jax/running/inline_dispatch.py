"""Let a program on CPU run in the thread that calls it.

JAX otherwise runs it in a thread of its own, which says that its results are there before it has
given back its temporaries. Where the next call is faster than that, it takes new ones; and where
freed memory stays with the process (``huge_pages``), that is larger from then on by all temporaries
of a step. It happened once or twice in half of the runs, at any step. Waiting costs nothing: no
step overlaps with another on CPU, and examples are read by other threads.

Whatever the option says, a program that is called before its arguments are there runs in a thread
of XLA's, and arrays above 100 KB are copied there by another thread. glibc gives such a thread at
most 64 MiB of a heap: the temporaries of a step, where they are larger, come from the kernel anew
at every call, a tenth of the time of a step of the segmentor of digits. So arguments are waited
for.
"""

from typing import TypeVar

import jax

from lska_jax.running.own_process import is_own_process

# Of programs for one device; JAX runs those for several devices of a CPU side by side.
OPTION = "jax_cpu_enable_async_dispatch"

_Arrays = TypeVar("_Arrays")


def use_inline_dispatch() -> None:
    """Set JAX's option in a process that is ours, see ``own_process``.

    Call it before JAX is asked for its devices; it is without effect later.
    """
    if is_own_process():
        jax.config.update(OPTION, False)


def wait_on_cpu(arrays: _Arrays) -> _Arrays:
    """Return arrays that were just put onto their devices, waited for where these are CPUs.

    Args:
      arrays: any tree of them.
    """
    for array in jax.tree.leaves(arrays):
        if next(iter(array.devices())).platform == "cpu":
            array.block_until_ready()
    return arrays
