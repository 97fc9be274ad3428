"""Where XLA's CPU backend has to be kept from merging operations.

A sum over channels or pixels takes whatever it can of the operations ahead of it into a fusion of
its own. Of a depth-wise convolution as a sum of shifted slices it takes half of the additions, and
the other half, with every slice and every weight, is written out as a whole map: ten times the time
of convolution and LayerNorm one after the other.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lska_jax.ops.platform import target_platform


def written_out(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x, for sums to read as it is: on CPU they take nothing of how it is computed.

    Args:
      x: any shape, floating-point.
    """
    return _select(x) if target_platform() == "cpu" else x


@jax.custom_jvp
def _select(x: Array) -> Array:
    # The identity, infinities and NaN included, as an operation that such fusions do not take; a
    # barrier is gone before they are made.
    least = float(jnp.finfo(x.dtype).min)
    return jnp.where(x < least, jnp.full_like(x, -jnp.inf), x)


@_select.defjvp
def _pass_on(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _select(*primals), tangents[0]
