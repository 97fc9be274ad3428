"""Let a program's large allocations lie on huge pages.

On CPU every step faults its temporaries in anew, and with 4 KiB pages that is slow
(``benchmarks/huge_pages.py`` measures it). glibc reads the setting when a process starts, hence the
restart.
"""

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def restart_with_huge_pages() -> None:
    """Start this program again, once, with glibc backing large allocations by huge pages.

    For the main module of a program only, before anything is computed. Set GLIBC_TUNABLES yourself,
    to anything, to keep it as it is.
    """
    if sys.platform == "linux" and VARIABLE not in os.environ:
        os.environ[VARIABLE] = HUGE_PAGES
        os.execv(sys.executable, sys.orig_argv)
