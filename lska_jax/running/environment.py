"""On what a run goes on: versions, devices, the machine. Written beside its config."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import lska_jax
from lska_jax.running.compiler_options import VARIABLE as XLA_FLAGS

COMPILER_OPTIONS = "compiler options"
NONE = "none"

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")


def describe_environment() -> dict[str, str]:
    """Return what the numbers and the speed of a run depend on besides its config.

    JAX's devices are asked for, so that this comes after the process has joined others.
    """
    import jax

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    versions = [f"{name} {_version_of(name)}" for name in _PACKAGES]
    return {
        "lska_jax": lska_jax.__version__,
        "python": platform.python_version(),
        "packages": ", ".join(versions),
        COMPILER_OPTIONS: os.environ.get(XLA_FLAGS) or NONE,
        "devices": f"{len(devices)} {devices[0].platform} ({', '.join(kinds)})",
        "processes": str(jax.process_count()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def changed_compiler_options(file: Path, now: Mapping[str, str]) -> str | None:
    """Return what to say of a run that goes on with other compiler options; None of the same.

    Args:
      file: where the last start wrote its ``describe_environment``; it need not be there.
      now: that of this start.
    """
    try:
        last = json.loads(file.read_text(encoding="utf-8"))
        before = str(last.get(COMPILER_OPTIONS, NONE))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    if before == now[COMPILER_OPTIONS]:
        return None
    wanted = "" if before == NONE else before
    return (
        f"{COMPILER_OPTIONS.capitalize()} changed since the last start: {before} -> "
        f"{now[COMPILER_OPTIONS]}. Programs round differently with them: the run goes on, though "
        f"not bit for bit as before. It does with {XLA_FLAGS}={wanted!r}."
    )


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
