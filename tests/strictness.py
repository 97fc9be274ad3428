"""JAX's strict modes, for the tests of operations, layers and models."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def strict_promotion() -> Iterator[None]:
    """Refuse, in a file's tests, dtypes that mix and ranks that broadcast without being told."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
