"""XLA's options for the processor: set where they are known and wanted, and never over a user's."""

import json
import os
import sys
from pathlib import Path

import pytest

from lska_jax.ops import processor
from lska_jax.running import compiler_options
from lska_jax.running.compiler_options import VARIABLE, WIDE_VECTORS, is_known, use_compiler_options
from lska_jax.running.environment import (
    COMPILER_OPTIONS,
    changed_compiler_options,
    describe_environment,
)

WIDE = "flags\t\t: fpu avx2 avx512f avx512dq avx512bw avx512vl avx512_bf16"
NARROW = "flags\t\t: fpu avx2 fma"
OURS, ANOTHERS = "python -m lska_jax train", "python -m ipykernel_launcher"


@pytest.fixture
def flags(monkeypatch, tmp_path):
    """Return what settles a process's options: (command line, features, XLA_FLAGS) -> XLA_FLAGS."""
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")

    def settle(command_line: str, features: str, given: str = "") -> str:
        monkeypatch.setattr(sys, "orig_argv", command_line.split())
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{features}\n\nprocessor\t: 1\n")
        monkeypatch.setenv(VARIABLE, given)
        use_compiler_options()
        return os.environ[VARIABLE]

    return settle


def test_wide_vectors_are_used_where_the_processor_has_them(flags):
    assert flags(OURS, WIDE) == WIDE_VECTORS
    assert flags(OURS, NARROW) == ""


def test_a_users_options_stay_and_win_by_name(flags):
    assert flags(OURS, WIDE, "--xla_dump_to=a") == f"--xla_dump_to=a {WIDE_VECTORS}"
    own = "--xla_cpu_prefer_vector_width=128 --xla_dump_to=a"
    assert flags(OURS, WIDE, own) == own
    assert flags(OURS, WIDE, "flags.txt") == "flags.txt"


def test_a_users_text_is_not_rewritten(flags):
    own = "--xla_dump_to='a  b'\t--xla_dump_hlo_as_text "
    assert flags(OURS, WIDE, own) == f"{own} {WIDE_VECTORS}"


def test_a_process_that_is_not_ours_is_left_alone(flags):
    assert flags(ANOTHERS, WIDE) == ""


def test_an_option_that_the_installed_xla_does_not_know_is_not_set(flags, monkeypatch):
    # One is invented; the other is a string in XLA, and an option of another kind.
    unknown = "--xla_cpu_prefer_vector_widths=512"
    assert is_known(WIDE_VECTORS) and not is_known(unknown)
    assert not is_known("--xla_cpu_disable_loop_unrolling=true")
    monkeypatch.setattr(compiler_options, "WIDE_VECTORS", unknown)
    assert flags(OURS, WIDE) == ""


def test_nothing_is_set_without_a_library_or_a_list_of_processors(flags, monkeypatch, tmp_path):
    monkeypatch.setattr(compiler_options, "_libraries", lambda: iter([tmp_path / "gone.so"]))
    assert flags(OURS, WIDE) == ""
    monkeypatch.setattr(processor, "CPUINFO", Path("/nowhere/cpuinfo"))
    assert compiler_options._options() == ()


def test_a_run_that_goes_on_with_other_options_is_told(monkeypatch, tmp_path):
    file = tmp_path / "environment.json"
    monkeypatch.setenv(VARIABLE, "")
    before = describe_environment()
    assert before[COMPILER_OPTIONS] == "none"
    assert changed_compiler_options(file, before) is None
    file.write_text(json.dumps(before))
    assert changed_compiler_options(file, before) is None
    monkeypatch.setenv(VARIABLE, WIDE_VECTORS)
    said = changed_compiler_options(file, describe_environment())
    assert said.startswith(f"Compiler options changed since the last start: none -> {WIDE_VECTORS}")
    assert said.endswith("XLA_FLAGS=''.")
