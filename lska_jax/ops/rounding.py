"""Rounding of float32 maps to the compute dtype.

To bfloat16 on CPU it is spelled out in whole numbers: the same bits as XLA's own conversion, whose
loops take up to twice as long where something is computed in them (docs/performance/notes.md).
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lska_jax.ops.platform import target_platform

# A bfloat16 is the upper half of a float32. Just below half of its last place, and its quiet NaN.
_BELOW_HALF, _NAN = 0x7FFF, 0x7FC00000


def round_to(x: Float[Array, "*shape"], dtype: DTypeLike) -> Float[Array, "*shape"]:
    """Return x in another dtype, to the nearest number, ties to even.

    Args:
      x: any shape, float32 or bfloat16.
      dtype: of the result.
    """
    is_narrowed = x.dtype == jnp.float32 and jnp.dtype(dtype) == jnp.bfloat16
    return _round(x) if is_narrowed and target_platform() == "cpu" else x.astype(dtype)


@jax.custom_jvp
def _round(x: Array) -> Array:
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    rounded = bits + _BELOW_HALF + ((bits >> 16) & 1)
    # That addition would carry the largest NaN into a zero.
    rounded = jnp.where(jnp.isnan(x), jnp.uint32(_NAN), rounded)
    return lax.bitcast_convert_type((rounded >> 16).astype(jnp.uint16), jnp.bfloat16)


@_round.defjvp
def _round_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _round(*primals), tangents[0].astype(jnp.bfloat16)
