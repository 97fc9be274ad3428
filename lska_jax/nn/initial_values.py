"""Initial values at the price of a few compiled programs, and keys at the price of none.

XLA compiles a program for every shape that is drawn, half a second each on a CPU: 20 s for a base
network. Here only a few sizes are drawn and each parameter takes the front of one. The values are
those of ``nnx.initializers.normal``, bit for bit, since JAX's partitionable Threefry makes each
element a function of the key and its position alone.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from lska_jax.ops.plain_numbers import plain_int

# Where random numbers may come from: streams, a seed, or a key of ``jax.random``.
RngsLike = nnx.Rngs | SupportsIndex | jax.Array

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


def as_rngs(rngs: RngsLike) -> nnx.Rngs:
    """Return an ``nnx.Rngs`` as it is, and one made from a seed or a key.

    Raises:
      TypeError: neither of these.
    """
    if isinstance(rngs, nnx.Rngs):
        return rngs
    if isinstance(rngs, jax.Array) and jax.dtypes.issubdtype(rngs.dtype, jax.dtypes.prng_key):
        return nnx.Rngs(rngs)
    if isinstance(rngs, jax.Array) and rngs.shape == (2,):  # of jax.random.PRNGKey
        return nnx.Rngs(jax.random.wrap_key_data(rngs))
    try:
        return nnx.Rngs(plain_int("rngs", rngs))
    except TypeError:
        raise TypeError(
            f"rngs must be an nnx.Rngs, a seed such as 0, or a key such as jax.random.key(0); "
            f"got {rngs!r}."
        ) from None


@functools.cache
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


@functools.cache
def xavier_uniform(kernel_height: int, kernel_width: int) -> nnx.Initializer:
    """Return the init of feature pyramids and of the layers on boxes, of kernels (..., in, out).

    Uniform within sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010).

    Args:
      kernel_height: of the convolution; 1 of a product over channels.
      kernel_width: likewise.
    """
    pixels = kernel_height * kernel_width

    def draw(key: Any, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        bound = math.sqrt(6.0 / (pixels * (shape[-2] + shape[-1])))
        size = math.prod(shape)
        if isinstance(key, jax.core.Tracer) or dtype != jnp.float32 or size > _DRAWN_SIZES[-1]:
            return jax.random.uniform(key, shape, dtype, -bound, bound)
        drawn = next(n for n in _DRAWN_SIZES if size <= n)
        values = np.asarray(jax.random.uniform(key, (drawn,), jnp.float32, -1.0, 1.0))
        return jax.device_put(values[:size].reshape(shape) * np.float32(bound))

    return draw


def fan_out_normal(
    kernel_height: int, kernel_width: int, features_per_group: int
) -> nnx.Initializer:
    """Return the init of VAN's convolutions, and others': normal, std sqrt(2 / fan_out)."""
    fan_out = kernel_height * kernel_width * features_per_group
    return normal(math.sqrt(2.0 / fan_out))
