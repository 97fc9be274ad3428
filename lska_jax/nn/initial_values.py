"""Initial values at the price of one compiled program, and keys at the price of none.

XLA compiles a program for every shape that is drawn, half a second each on a CPU: 20 s for a base
network. Here one program draws so many values from any position on, and each parameter takes as
many of them as it needs. The values are those of ``nnx.initializers.normal``, bit for bit, since
JAX's partitionable Threefry makes each element a function of the key and its position alone.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend.random import threefry_2x32
from jax.typing import DTypeLike

from lska_jax.ops.plain_numbers import plain_int

# Where random numbers may come from: streams, a seed, or a key of ``jax.random``.
RngsLike = nnx.Rngs | SupportsIndex | jax.Array

# Values that one call draws.
_DRAWN_AT_ONCE = 2**15
_THREEFRY = "threefry2x32"
_has_only_shapes = contextvars.ContextVar("has_only_shapes", default=False)


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


@contextlib.contextmanager
def only_shapes() -> Iterator[None]:
    """Leave initial values at zero: for a model that is built for its shapes alone.

    To trace the drawing of all of them takes most of the time of such a model.
    """
    token = _has_only_shapes.set(True)
    try:
        yield
    finally:
        _has_only_shapes.reset(token)


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
        if _has_only_shapes.get():
            return jnp.zeros(shape, dtype)
        if dtype != jnp.float32 or not _can_draw(key):
            return traced(key, shape, dtype)
        return _drawn(key, shape, lowest=_LOWEST_NORMAL, is_normal=True, scale=stddev)

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
        if _has_only_shapes.get():
            return jnp.zeros(shape, dtype)
        if dtype != jnp.float32 or not _can_draw(key):
            return jax.random.uniform(key, shape, dtype, -bound, bound)
        return _drawn(key, shape, lowest=-1.0, is_normal=False, scale=bound)

    return draw


def fan_out_normal(
    kernel_height: int, kernel_width: int, features_per_group: int
) -> nnx.Initializer:
    """Return the init of VAN's convolutions, and others': normal, std sqrt(2 / fan_out)."""
    fan_out = kernel_height * kernel_width * features_per_group
    return normal(math.sqrt(2.0 / fan_out))


def _can_draw(key: Any) -> bool:
    """Tell whether a key's values are known by position, and drawn here and now."""
    if isinstance(key, jax.core.Tracer):
        return False
    is_typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    settings: Any = jax.config
    return (
        is_typed
        and str(jax.random.key_impl(key)) == _THREEFRY
        and settings.jax_threefry_partitionable
    )


# What ``jax.random.normal`` takes the inverse error function of lies between this and 1.
_LOWEST_NORMAL = float(np.nextafter(np.float32(-1), np.float32(0)))


def _drawn(
    key: jax.Array, shape: Sequence[int], *, lowest: float, is_normal: bool, scale: float
) -> jax.Array:
    size = math.prod(shape)
    pieces = [
        np.asarray(_draw(key, np.uint32(start), np.float32(lowest), is_normal=is_normal))
        for start in range(0, size, _DRAWN_AT_ONCE)
    ]
    values = np.concatenate(pieces)[:size] if pieces else np.empty(0, np.float32)
    # On the host: cut and scaled there, nothing more is compiled.
    return jax.device_put(values.reshape(shape) * np.float32(scale))


@functools.partial(jax.jit, static_argnames="is_normal")
def _draw(key: jax.Array, start: jax.Array, lowest: jax.Array, *, is_normal: bool) -> jax.Array:
    """Draw from a position on what ``jax.random`` does: uniform in [lowest, 1), or normal.

    The steps are those of ``jax.random``: a position is a 64-bit counter, 23 bits are the fraction
    of a number in [1, 2).
    """
    positions = start + jnp.arange(_DRAWN_AT_ONCE, dtype=jnp.uint32)
    counters = jnp.concatenate([jnp.zeros_like(positions), positions])
    high, low = jnp.split(threefry_2x32(jax.random.key_data(key), counters), 2)
    fraction = jax.lax.shift_right_logical(high ^ low, jnp.uint32(32 - 23))
    one = jnp.uint32(np.float32(1).view(np.uint32))
    uniform = jax.lax.bitcast_convert_type(fraction | one, jnp.float32) - jnp.float32(1)
    values = jnp.maximum(lowest, uniform * (jnp.float32(1) - lowest) + lowest)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(values) if is_normal else values
