"""On what a run goes on: versions, devices, the machine. Written beside its config."""

import importlib.metadata
import os
import platform

import lska_jax

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
        "devices": f"{len(devices)} {devices[0].platform} ({', '.join(kinds)})",
        "processes": str(jax.process_count()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
