"""Let a program's large allocations lie on huge pages and stay with it.

On CPU XLA takes the temporaries of every step from malloc and gives them back; glibc hands them to
the kernel, so that every step faults all of them in anew, page by page
(``benchmarks/huge_pages.py`` measures what that costs). glibc reads its settings when a process
starts, hence the restart.
"""

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
# Pages of 2 MiB; then what is freed is kept: no mapping of its own for a large block, nothing
# trimmed below 64 GiB, and one heap, because only the first can grow without bound.
HUGE_PAGES = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    f"glibc.malloc.trim_threshold={2**36}:glibc.malloc.arena_max=1"
)


def restart_with_huge_pages() -> None:
    """Start this program again, once, with large allocations on huge pages, kept when freed.

    For the main module of a program only, before anything is computed. Set GLIBC_TUNABLES yourself,
    to anything, to keep it as it is.
    """
    if sys.platform == "linux" and VARIABLE not in os.environ:
        os.environ[VARIABLE] = HUGE_PAGES
        os.execv(sys.executable, sys.orig_argv)
