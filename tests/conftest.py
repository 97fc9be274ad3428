"""Settings that every test runs under; they have to be made before jax or lska_jax is imported."""

import os

from jaxtyping import install_import_hook

# Virtual devices for the sharding tests. A variable that is already set wins, as XLA reads one.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Shapes and dtypes in annotations are checked at run time, in tests only.
install_import_hook("lska_jax", "beartype.beartype")
