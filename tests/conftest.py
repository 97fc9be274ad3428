"""Settings of every test; they have to be made before jax or lska_jax is imported."""

import os

import pytest
from jaxtyping import install_import_hook

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight virtual devices, for the tests of sharding. XLA reads the variable once.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

# Every annotation is checked at run time, in tests only. Where a test passes what an annotation
# forbids, to see the package's own error, it calls the function behind the check: inspect.unwrap.
install_import_hook("lska_jax", "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    # nnx.State is generic over typing.Hashable, which beartype calls deprecated.
    config.addinivalue_line(
        "filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    )
