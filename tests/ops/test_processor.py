"""What a processor can do is read from the system's list."""

from pathlib import Path

import pytest

from lska_jax.ops import processor

WIDE = "fpu avx2 avx512f avx512dq avx512bw avx512vl"


@pytest.mark.parametrize(
    ("flags", "is_wide", "is_multiplying"),
    [
        ("fpu avx2 fma", False, False),
        (WIDE, True, False),
        (f"{WIDE} avx512_bf16", True, True),
        (f"{WIDE} amx_bf16 amx_tile", True, True),
    ],
)
def test_each_kind_is_told_by_its_flags(flags, is_wide, is_multiplying, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    processor.multiplies_bfloat16.cache_clear()
    try:
        assert processor.has_wide_vectors() == is_wide
        assert processor.multiplies_bfloat16() == is_multiplying
    finally:
        processor.multiplies_bfloat16.cache_clear()


def test_without_a_list_nothing_is_taken_for_granted(monkeypatch):
    monkeypatch.setattr(processor, "CPUINFO", Path("/nowhere/cpuinfo"))
    assert not processor.has_wide_vectors()
