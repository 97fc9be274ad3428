"""The exact GELU (arXiv 1606.08415, eq. 2) with a derivative of its own.

    gelu(x) = x Phi(x),    gelu'(x) = Phi(x) + x phi(x)

Phi and phi are distribution and density of the standard normal. Autodiff would keep several maps
for the backward pass; here only x is kept, in its own dtype.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops.checks import check_dtype
from lska_jax.ops.reverse_mode import reverse_mode_only
from lska_jax.ops.rounding import round_to

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = 1.0 / math.sqrt(2.0 * math.pi)
# Below, Phi is zero in float32, and so are value and slope, at minus infinity too.
LEAST = -14.0


@reverse_mode_only
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Apply the exact (erf) GELU; ``jax.nn.gelu`` defaults to the tanh approximation.

    Args:
      x: any shape, float32 or bfloat16; bfloat16 is computed in float32 and rounded once.

    Returns:
      The same shape and dtype. Gradients are reverse mode.

    Raises:
      ValueError: another dtype.
    """
    check_dtype("x", x)
    return _gelu(x)


@jax.custom_vjp
def _gelu(x: Array) -> Array:
    wide = x.astype(jnp.float32)
    # The select also keeps XLA's CPU backend from merging whole layers into one slow fusion.
    return round_to(jnp.where(wide < LEAST, 0.0, wide * _distribution(wide)), x.dtype)


def _forward(x: Array) -> tuple[Array, Array]:
    return _gelu(x), x


def _backward(x: Array, gradient: Array) -> tuple[Array]:
    # Else XLA computes one erf for both passes, and keeps a whole map of it in between.
    x, gradient = lax.optimization_barrier((x, gradient))
    wide = x.astype(jnp.float32)
    density = _DENSITY_AT_ZERO * jnp.exp(-0.5 * jnp.square(wide))
    slope = _distribution(wide) + wide * density
    scaled = gradient.astype(jnp.float32) * slope
    return (round_to(jnp.where(wide < LEAST, 0.0, scaled), x.dtype),)


_gelu.defvjp(_forward, _backward)


def _distribution(x: Array) -> Array:
    return 0.5 * (1.0 + lax.erf(_SQRT_HALF * x))
