"""Whole programs kept on disk, so that a second start neither traces, lowers nor compiles.

JAX's own cache of compiled programs is asked with a program, which Python has to trace and lower
first, with the network built: most of what it takes to predict one photo. Here the compiled program
is kept under a hash of all that decides it: what it computes in words, this package's code,
versions, settings and the shapes of its arguments. Entries are sealed, removed and limited as those
of ``compilation_cache``, whose folder they lie in; like those they are code that will run, here in
a pickle of JAX's (docs/trust.md).

On CPU only, and on one device, where it was measured; anywhere else nothing is kept.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from lska_jax.ops.processor import usable_cores
from lska_jax.running.compilation_cache import ENTRY, kept_in, remove, seal_new
from lska_jax.running.whole_file import write_whole

_PACKAGE = Path(__file__).parents[1]
_VERSIONS_OF = ("jax", "jaxlib", "flax", "numpy")
# What else decides how JAX traces and compiles.
_VARIABLES = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")

Program = Callable[..., jax.Array]


def keep_program(
    make: Callable[[], Program], *arguments: Any, name: str, described: str
) -> Program:
    """Return a function as a compiled program, read from the disk if an earlier process kept it.

    Args:
      make: returns the function, traceable; it is not called where the program is on the disk.
      *arguments: as the function will be called, trees of arrays.
      name: of the program, letters and underscores.
      described: everything that the function closes over and that its program depends on, in words.

    Returns:
      The program, for arguments of these shapes only.
    """
    folder = kept_in()
    if folder is None or not can_keep():
        return jax.jit(make())
    path = folder / f"{name}-{_key(described, arguments)}{ENTRY}"
    program = _load(path, arguments)
    if program is None:
        lowered = jax.jit(make()).lower(*arguments)
        with _compiled_anew():
            compiled = lowered.compile()
        _write(path, compiled)
        program = compiled
    return program


def can_keep() -> bool:
    """Tell whether programs are kept in this process."""
    return kept_in() is not None and jax.default_backend() == "cpu" and jax.device_count() == 1


@contextlib.contextmanager
def _compiled_anew() -> Iterator[None]:
    """Leave JAX's cache out: a program that it read from there would be written without its code.

    jax 0.10.2 writes such a program all the same, and loads it; the first call then fails.
    """
    from jax.experimental.compilation_cache import compilation_cache

    settings: Any = jax.config
    is_enabled = settings.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", is_enabled)
        compilation_cache.reset_cache()


def _write(path: Path, compiled: Any) -> None:
    from jax.experimental import serialize_executable

    # A folder that cannot be written costs time, not the run; nor does a program of a kind that JAX
    # cannot write.
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        # Another process's may be there by now, and sealed: its bytes need not be the same.
        if not path.exists():
            write_whole(path, serialize_executable.serialize(compiled)[0])
            seal_new(path.parent)


def _load(path: Path, arguments: tuple[Any, ...]) -> Program | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    from jax.experimental import serialize_executable

    called = jax.tree.structure((arguments, {}))
    try:
        return serialize_executable.deserialize_and_load(
            data, called, jax.tree.structure(0), execution_devices=jax.devices()[:1]
        )
    # What it raises for a program of another build depends on where it stops.
    except Exception:
        remove(path)
        return None


def _key(described: str, arguments: Any) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(arguments)
    settings: Any = jax.config
    decisive = {
        "described": described,
        "code": _code_hash(),
        "versions": [importlib.metadata.version(package) for package in _VERSIONS_OF],
        "variables": [os.environ.get(name) for name in _VARIABLES],
        "settings": [str(getattr(settings, name)) for name in _SETTINGS],
        "cores": usable_cores(),
        "arguments": [f"{jax.tree_util.keystr(at)} {x.dtype}{x.shape}" for at, x in leaves],
    }
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


@functools.cache
def _code_hash() -> str:
    """Return the hash of this package's Python files and of the table behind "auto"."""
    found = hashlib.sha256()
    for path in sorted([*_PACKAGE.rglob("*.py"), *_PACKAGE.glob("ops/*.json")]):
        found.update(f"{path.relative_to(_PACKAGE)}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
