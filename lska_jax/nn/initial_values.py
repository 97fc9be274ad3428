"""Initial values at the price of a few compiled programs, and keys at the price of none.

XLA compiles a program for every shape that is drawn, half a second each on a CPU: 20 s for a base
network. Here only a few sizes are drawn and each parameter takes the front of one. The values are
those of ``nnx.initializers.normal``, bit for bit, since JAX's partitionable Threefry makes each
element a function of the key and its position alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

_DRAWN_SIZES = (2**12, 2**17, 2**19, 2**21)


class OneKey(nnx.Rngs):
    """One key for every parameter, to build a model abstractly.

    Under a trace every key that ``nnx.Rngs`` counts costs a walk over all operations so far: more
    than all the rest of tracing.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self.only_key = jax.random.key(0)

    def params(self) -> jax.Array:
        """Return the key."""
        return self.only_key


def normal(stddev: float) -> nnx.Initializer:
    """Return an initializer: normal with mean 0, as ``nnx.initializers.normal`` draws it.

    Args:
      stddev: standard deviation.
    """
    traced = nnx.initializers.normal(stddev)

    def draw(key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        size = math.prod(shape)
        if isinstance(key, jax.core.Tracer) or dtype != jnp.float32 or size > _DRAWN_SIZES[-1]:
            return traced(key, shape, dtype)
        drawn = next(n for n in _DRAWN_SIZES if size <= n)
        values = np.asarray(jax.random.normal(key, (drawn,), jnp.float32))
        # On the host: sliced and scaled there, nothing more is compiled.
        return jax.device_put(values[:size].reshape(shape) * np.float32(stddev))

    return draw
