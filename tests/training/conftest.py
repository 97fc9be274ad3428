"""What tests of the trainer share."""

import functools
from collections.abc import Iterator

import jax
import pytest

from lska_jax.running import parallel


@pytest.fixture(scope="module")
def two_devices() -> Iterator[None]:
    """Let runs have two of the eight devices: Orbax saves every array in a piece for each."""
    with pytest.MonkeyPatch.context() as patch:
        two = functools.partial(parallel.make_mesh, devices=jax.devices()[:2])
        patch.setattr(parallel, "make_mesh", two)
        yield
