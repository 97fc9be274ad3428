"""Let a program's large allocations lie on huge pages and stay with it.

On CPU XLA takes the temporaries of every step from malloc and gives them back; glibc hands them to
the kernel, so that every step faults all of them in anew, page by page
(``benchmarks/huge_pages.py`` measures what that costs). glibc reads its settings when a process
starts, hence the restart; it happens to a process that a command line of this project started, and
to no other.
"""

import ctypes
import os
import sys

from lska_jax.running.own_process import is_own_process

VARIABLE = "GLIBC_TUNABLES"
# Pages of 2 MiB; then what is freed is kept: no mapping of its own for a large block, and nothing
# trimmed below 64 GiB.
HUGE_PAGES = f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={2**36}"
_EXPLANATION = (
    "Steps on the CPU are faster with large allocations on huge pages. This process was not "
    f"started by lska-jax, so it is left as it is; to use them, start it with {VARIABLE}="
    f"{HUGE_PAGES}"
)
_is_explained = False


def restart_with_huge_pages() -> None:
    """Start this program again, once, with large allocations on huge pages, kept when freed.

    For the main module of a program only, before anything is computed. Set GLIBC_TUNABLES yourself,
    to anything, to keep it as it is. A process that was not started for this program (a notebook's
    kernel, a debugger, a program that embeds Python) goes on, and is told of the settings.
    """
    if not _can_use():
        return
    if is_own_process():
        os.environ[VARIABLE] = HUGE_PAGES
        os.execv(sys.executable, sys.orig_argv)
    explain_huge_pages()


def explain_huge_pages() -> None:
    """Say once how a process that may not be restarted gets huge pages."""
    global _is_explained
    if _can_use() and not _is_explained:
        _is_explained = True
        print(_EXPLANATION, file=sys.stderr)


def release_freed_memory() -> None:
    """Give back what is freed and kept: the memory of a compile, and that of first steps.

    The compiler's threads have heaps of their own, which the temporaries of a step do not fit in;
    and in the first steps those may have been in two places.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _can_use() -> bool:
    return sys.platform == "linux" and VARIABLE not in os.environ
