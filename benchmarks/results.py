"""Options, conditions and files of a benchmark: what they all have in common.

A result is one JSON file: {"benchmark", "is_quick", "conditions", "rows"}. Its pictures and the
tables of docs/performance/ are made from it.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lska_jax.ops.processor import has_wide_vectors, usable_cores, widest_vectors
from lska_jax.running.huge_pages import VARIABLE

DEFAULT_FOLDER = Path("docs/performance")
NOT_YET_RUN = "not yet run"
WAIT_POLICY = "OMP_WAIT_POLICY"

_VERSIONS_OF = ("jax", "jaxlib", "flax", "numpy", "torch", "libtpu")
_INSTALL = "pip install '.[bench]'"

Row = dict[str, Any]


def names_by_vectors(benchmark: str) -> tuple[str, str]:
    """Return the names of a benchmark's results with AVX-512 and without.

    A kind of processor has a file of its own where what is ahead on one is behind on the other.
    """
    return f"{benchmark}_avx512", f"{benchmark}_avx2"


def name_here(benchmark: str) -> str:
    """Return the name of such results on this processor."""
    wide, narrow = names_by_vectors(benchmark)
    return wide if has_wide_vectors() else narrow


def option_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has.

    Args:
      module: the command, as in ``python -m benchmarks.MODULE``.
      description: what ``--help`` says.
    """
    parser = argparse.ArgumentParser(
        f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"folder of the JSON and PNG files (default: {DEFAULT_FOLDER}, with --quick a "
        "temporary one)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it runs; figures mean nothing"
    )
    return parser


def output_folder(options: argparse.Namespace) -> Path:
    """Return the folder of a run's files, which is made if it is not there."""
    folder = options.out or (
        Path(tempfile.mkdtemp(prefix="lska_jax_quick_")) if options.quick else DEFAULT_FOLDER
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def start(expected: str, *, is_quick: bool) -> dict[str, Any]:
    """Settle how threads and programs wait, print and return the conditions that figures hold for.

    Args:
      expected: how long a full run takes, in words.
      is_quick: whether this is a smoke run.
    """
    # PyTorch's OpenMP threads otherwise spin between two operations. Where anything else wants the
    # cores, it then takes several times as long. libgomp reads this when torch is imported.
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")
    from lska_jax.running.inline_dispatch import use_inline_dispatch

    use_inline_dispatch()
    conditions = describe_conditions()
    print("\n".join(f"{name:<14} {value}" for name, value in conditions.items()))
    print(f"Expected to take {'seconds' if is_quick else expected}.", flush=True)
    return conditions


def describe_conditions() -> dict[str, Any]:
    """Return machine, threads, load, versions, settings and date."""
    versions = {"python": platform.python_version(), **versions_of(_VERSIONS_OF)}
    import jax

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m", *_module_command()]),
        "commit": commit(),
        "backend": f"{jax.default_backend()}, {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": f"{usable_cores()} on both sides",
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "versions": versions,
        VARIABLE: os.environ.get(VARIABLE, "not set"),
        WAIT_POLICY: os.environ.get(WAIT_POLICY, "not set"),
        "dtype": "float32",
    }


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package, or that there is none."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_result(
    folder: Path, name: str, *, conditions: Mapping[str, Any], rows: Iterable[Row], is_quick: bool
) -> dict[str, Any]:
    """Write FOLDER/NAME.json and return what it holds."""
    finished = {**conditions, "load_at_end": [round(load, 2) for load in os.getloadavg()]}
    result = {
        "benchmark": name,
        "is_quick": is_quick,
        "conditions": finished,
        "rows": list(rows),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(f"Wrote {path}.")
    return result


def read_result(folder: Path, name: str) -> dict[str, Any] | None:
    """Return what ``write_result`` wrote, or None if it is not there.

    Raises:
      ValueError: the file comes from a --quick run, whose figures mean nothing.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    if result["is_quick"]:
        raise ValueError(
            f"{path} comes from a --quick run. Run python -m benchmarks.{name} without --quick."
        )
    return result


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def run_child(
    module: str, *arguments: str, is_quick: bool, environment: Mapping[str, str] | None = None
) -> Any:
    """Run a benchmark in a process of its own, and return the JSON that it prints.

    Args:
      module: the command, as in ``python -m benchmarks.MODULE``.
      *arguments: of the command, which make it print one figure and nothing else.
      is_quick: whether ``--quick`` is passed on.
      environment: variables that differ from this process's.

    Raises:
      subprocess.CalledProcessError: it failed; what it said is on the terminal.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments, *["--quick"] * is_quick],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def require(package: str, purpose: str, *, extra: str = "bench") -> ModuleType:
    """Import a package that only benchmarks need.

    Args:
      package: its name.
      purpose: what needs it, as the message begins.
      extra: of this project, that installs it.

    Raises:
      SystemExit: it is not installed; the message says how to install it.
    """
    if importlib.util.find_spec(package) is None:
        raise SystemExit(
            f"{purpose} needs {package}, which is not installed: pip install '.[{extra}]'"
        )
    return importlib.import_module(package)


def has_torch() -> bool:
    """Tell whether PyTorch is installed; without it the comparisons with it are left out."""
    is_here = importlib.util.find_spec("torch") is not None
    if not is_here:
        print(f"PyTorch is not installed, so nothing is compared with it. {_INSTALL} installs it.")
    return is_here


def _module_command() -> list[str]:
    path = Path(sys.argv[0])
    return [f"{path.parent.name}.{path.stem}", *sys.argv[1:]]


def commit() -> str:
    """Return the checkout's commit, and whether files other than results differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            ", changed"
            if git(
                "status", "--porcelain", "--untracked-files=no", "--", ":/", f":!/{DEFAULT_FOLDER}"
            )
            else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name} with {widest_vectors()}" if widest_vectors() else name
