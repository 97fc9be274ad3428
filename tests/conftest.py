"""Settings of every test; they have to be made before jax or lska_jax is imported."""

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).parents[1]

# What importing and collecting makes stays to the end: nothing there to collect.
gc.disable()

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA reads the variable once. Eight virtual devices, for the tests of sharding; and since tests
# compile much and compute little, code without optimisation, in one piece: that halves their time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1 "
    # The default: commands that tests start would choose by processor, and round differently.
    "--xla_cpu_prefer_vector_width=256",
)

# JAX writes where in Python each operation comes from into every program: a seventh of the time of
# tests that trace, for messages of the compiler that none of them reads.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Annotations are checked at run time, in tests only, in the files that annotate arrays with their
# shapes; mypy checks the others. Where a test passes what an annotation forbids, to see the
# package's own error, it calls the function behind the check: inspect.unwrap.
install_import_hook(
    [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "lska_jax").rglob("*.py")
        if "jaxtyping" in file.read_text()
    ],
    "beartype.beartype",
)


def pytest_configure(config: pytest.Config) -> None:
    # nnx.State is generic over typing.Hashable, which beartype calls deprecated.
    config.addinivalue_line(
        "filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    )


# Files that take longest, first: with one of them left for the end, all cores but one would wait.
_SLOWEST = (
    "training/test_processes.py",
    "models/test_families.py",
    "models/test_golden.py",
    "training/test_any_task.py",
    "training/test_loop.py",
    "data/test_mixing.py",
    "models/test_van.py",
    "ops/test_depthwise.py",
    "weights/test_family_names.py",
    "models/test_bfloat16_gradients.py",
    "robustness/corruptions/test_oracles.py",
    "weights/test_import.py",
    "weights/test_transfer.py",
    "models/test_network.py",
    "training/test_resume.py",
    "training/test_finetune.py",
    "running/test_parallel.py",
    "test_project.py",
    "training/test_interruption.py",
    "faults/test_faults.py",
    "data/test_object_batches.py",
    "data/test_workers.py",
    "robustness/sweep/test_processes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first."""

    def rank(item: pytest.Item) -> int:
        place = item.path.as_posix()
        return next((n for n, name in enumerate(_SLOWEST) if place.endswith(name)), len(_SLOWEST))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays: modules and tests."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory) -> None:
    """Keep compiled programs for all tests of this process and the processes that they start.

    Each worker has a folder of its own: JAX writes entries in place, and a worker that read half
    of one would warn.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        # A small program too takes longer to compile than to read.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def shared_context() -> Iterator[None]:
    """Lower a file's programs in one MLIR context: a new one is a quarter of a small program."""
    from jax._src.interpreters import mlir

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlir, "make_ir_context", functools.cache(mlir.make_ir_context))
        yield
