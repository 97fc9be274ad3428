"""The exact GELU (arXiv 1606.08415, eq. 2) with a derivative of its own.

    gelu(x) = x Phi(x),    gelu'(x) = Phi(x) + x phi(x)

Phi and phi are the distribution and the density of the standard normal. Autodiff would keep several
maps for the backward pass; here only x is kept, and both are computed again.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_ZERO = 1.0 / math.sqrt(2.0 * math.pi)


@jax.custom_vjp
def gelu(x):
    wide = x.astype(jnp.float32)
    return jnp.where(wide < -14.0, 0.0, wide * _distribution(wide)).astype(x.dtype)
def _b(x,g):
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(wide)) * jnp.float32(_DENSITY_AT_ZERO)
    return (jnp.where(wide < -14.0, 0.0, g.astype(jnp.float32)*(_distribution(wide) + wide * density)).astype(x.dtype),)
gelu.defvjp(lambda x:(gelu(x),x),_b)

def _distribution(x: Array) -> Array:
    return 0.5 * (1.0 + lax.erf(x * jnp.float32(_SQRT_HALF)))
