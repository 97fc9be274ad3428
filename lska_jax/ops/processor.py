"""What the processor at hand can do: which forms suit it. Read without JAX, and before it starts.

The one place that tells kinds of processors apart; other modules ask by what they need.
"""

import functools
import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_WIDE_VECTORS = {"avx512f", "avx512vl", "avx512bw", "avx512dq"}
_BFLOAT16_PRODUCTS = ({"avx512_bf16"}, {"amx_bf16"})


def has_wide_vectors() -> bool:
    """Tell whether it has vectors of 512 bits: AVX-512's parts F, VL, BW and DQ."""
    return _features() >= _WIDE_VECTORS


def widest_vectors() -> str:
    """Return "AVX-512" as ``has_wide_vectors`` means it, "AVX2", or "" of neither."""
    if has_wide_vectors():
        return "AVX-512"
    return "AVX2" if "avx2" in _features() else ""


@functools.cache
def multiplies_bfloat16() -> bool:
    """Tell whether it multiplies bfloat16 and adds up in float32: AVX512_BF16 or AMX."""
    return any(_features() >= needed for needed in _BFLOAT16_PRODUCTS)


def usable_cores() -> int:
    """Return how many cores this process may use; containers often allow fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _features() -> set[str]:
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            # Of the first core: a file of hundreds of cores takes a while to read.
            line = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(line.split())
