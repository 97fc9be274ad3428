"""The numbers of ``jax.random``, bit for bit, from programs that compile and run faster on CPU.

There JAX runs Threefry as a loop of five steps, each of which writes all its numbers out and reads
them again; half of the cost of a noise was that. Written in one piece (Salmon et al., "Parallel
random numbers: as easy as 1, 2, 3", SC 2011) its twenty rounds stay in registers. Keys of other
kinds, which have other numbers, are left to JAX.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_ONE = 0x3F800000  # the bits of 1.0
_MANTISSA_BITS = 23
_ROOT_2 = np.float32(math.sqrt(2))


def split(key: Array) -> tuple[Array, Array]:
    """Return the two keys of ``jax.random.split(key)``."""
    if not _is_threefry(key):
        first, second = jax.random.split(key)
        return first, second
    high, low = _threefry(jax.random.key_data(key), jnp.arange(2, dtype=jnp.uint32))
    keys = jax.random.wrap_key_data(jnp.stack([high, low], axis=1), impl=jax.random.key_impl(key))
    return keys[0], keys[1]


def bits(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Return ``jax.random.bits(key, shape)``.

    The first numbers of a larger shape are those of a smaller one.
    """
    if not _is_threefry(key):
        return jax.random.bits(key, shape)
    # The number of a place depends on the place alone.
    places = jax.lax.iota(jnp.uint32, math.prod(shape))
    high, low = _threefry(jax.random.key_data(key), places)
    return (high ^ low).reshape(shape)


def uniform(
    key: Array, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0
) -> Float[Array, "..."]:
    """Return ``jax.random.uniform(key, shape, jnp.float32, low, high)``: low <= u < high."""
    mantissas = bits(key, shape) >> np.uint32(32 - _MANTISSA_BITS) | np.uint32(_ONE)
    shares = jax.lax.bitcast_convert_type(mantissas, jnp.float32) - 1.0
    least, most = np.float32(low), np.float32(high)
    return jnp.maximum(least, shares * (most - least) + least)


def normal(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Return ``jax.random.normal(key, shape, jnp.float32)``."""
    least = float(np.nextafter(np.float32(-1), np.float32(0)))
    shares = uniform(key, shape, least, 1.0)
    if math.prod(shape) == 0:
        return shares
    # A loop of one step, which XLA cannot know: it merges the two otherwise, and then its CPU
    # backend computes one number at a time, in ten times as long.
    once = (shares.reshape(-1)[0] >= least).astype(jnp.int32)
    return jax.lax.fori_loop(0, once, lambda _, x: _ROOT_2 * jax.lax.erf_inv(x), shares)


def _is_threefry(key: Array) -> bool:
    is_by_place = bool(getattr(jax.config, "jax_threefry_partitionable", True))
    return is_by_place and str(jax.random.key_impl(key)) == "threefry2x32"


def _threefry(
    key: UInt32[Array, "2"], places: UInt32[Array, " n"]
) -> tuple[UInt32[Array, " n"], UInt32[Array, " n"]]:
    """Encrypt the pairs (0, place) by Threefry-2x32-20."""
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(_PARITY))
    left, right = keys[0], places + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            left = left + right
            right = (right << np.uint32(distance)) | (right >> np.uint32(32 - distance))
            right = left ^ right
        left = left + keys[(group + 1) % 3]
        right = right + keys[(group + 2) % 3] + np.uint32(group + 1)
    return left, right
