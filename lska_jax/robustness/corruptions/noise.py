"""Noise: Gaussian, shot, impulse and speckle (Hendrycks & Dietterich, arXiv 1903.12261).

Noise has no length, so nothing scales with the size of the image.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lska_jax.robustness.corruptions import random_numbers
from lska_jax.robustness.corruptions.severities import Severity, at

# Standard deviations, shares and photon counts at severities 1 to 5.
GAUSSIAN_STDS = (0.08, 0.12, 0.18, 0.26, 0.38)
SHOT_COUNTS = (60, 25, 12, 5, 3)
IMPULSE_SHARES = (0.03, 0.06, 0.09, 0.17, 0.27)
SPECKLE_STDS = (0.15, 0.2, 0.35, 0.45, 0.6)

_LEVELS = 256
# Between two grey levels the mean count changes by 60/255 at most; more than 8 extra photons have a
# probability below 1e-11.
_MAX_EXTRA_COUNT = 8


def draw_normal(key: jax.Array, height: int, width: int) -> Float[Array, "height width 3"]:
    """Draw standard normal noise for one image."""
    return random_numbers.normal(key, (height, width, 3))


def draw_uniform(key: jax.Array, height: int, width: int) -> Float[Array, "height width 3"]:
    """Draw uniform noise in [0, 1) for one image."""
    return random_numbers.uniform(key, (height, width, 3))


class ShotDraws(NamedTuple):
    """What chance decides about shot noise: two (H, W, 3) fields of uniforms in [0, 1).

    Attributes:
      whole: for the photons of the whole grey level.
      rest: for those of what is left of the value.
    """

    whole: Float[Array, "*batch height width 3"]
    rest: Float[Array, "*batch height width 3"]


def draw_shots(key: jax.Array, height: int, width: int) -> ShotDraws:
    """Draw the two fields for one image."""
    whole_key, rest_key = random_numbers.split(key)
    return ShotDraws(draw_uniform(whole_key, height, width), draw_uniform(rest_key, height, width))


def gaussian_noise(
    images: Float[Array, "batch height width 3"],
    normal: Float[Array, "batch height width 3"],
    *,
    std: float | Float[Array, ""],
) -> Float[Array, "batch height width 3"]:
    """Return clip(x + std n), n standard normal for each pixel and channel."""
    return jnp.clip(images + std * normal, 0.0, 1.0)


def speckle_noise(
    images: Float[Array, "batch height width 3"],
    normal: Float[Array, "batch height width 3"],
    *,
    std: float | Float[Array, ""],
) -> Float[Array, "batch height width 3"]:
    """Return clip(x + std x n), n standard normal for each pixel and channel."""
    return jnp.clip(images * (1.0 + std * normal), 0.0, 1.0)


def impulse_noise(
    images: Float[Array, "batch height width 3"],
    uniform: Float[Array, "batch height width 3"],
    *,
    share: float | Float[Array, ""],
) -> Float[Array, "batch height width 3"]:
    """Set a share of all values to 0 or 1 with equal chances (salt and pepper).

    scikit-image draws which values change and what they become separately; one uniform number
    decides both here: below share / 2 it is pepper, from there to share it is salt.
    """
    salted = jnp.where(uniform < share, 1.0, images)
    return jnp.where(uniform < share / 2, 0.0, salted)


def shot_noise(
    images: Float[Array, "batch height width 3"],
    draws: ShotDraws,
    *,
    severity: Severity,
    is_levels: bool,
) -> Float[Array, "batch height width 3"]:
    """Return clip(Poisson(count x) / count).

    A Poisson variate of mean count x is the sum of one of mean count floor(255 x) / 255, read off
    the tabled distribution of that grey level by bisection, and one of the small remaining mean,
    for which a few terms of the distribution are enough. Both are exact to float32. With
    ``is_levels`` the images hold whole grey levels, and there is no remainder.
    """
    level = jnp.floor(images * 255.0 + 1e-3)
    number = _tabled_poisson(level.astype(jnp.int32), draws.whole, severity).astype(jnp.float32)
    count = at(severity, SHOT_COUNTS).astype(jnp.float32)
    if not is_levels:
        rest = jnp.maximum(images - level / 255.0, 0.0) * count
        number = number + _small_poisson(rest, draws.rest)
    return jnp.clip(number / count, 0.0, 1.0)


def _tabled_poisson(
    level: Int[Array, "..."], uniform: Float[Array, "..."], severity: Severity
) -> Int[Array, "..."]:
    """Return the smallest n with cdf(n) > u, of the Poisson law of mean count * level / 255."""
    tables = [_poisson_table(count) for count in SHOT_COUNTS]
    widths = np.asarray([table.shape[1] for table in tables])
    starts = np.cumsum([0, *(table.size for table in tables[:-1])])
    flat = jnp.asarray(np.concatenate([table.reshape(-1) for table in tables]), jnp.float32)
    width = at(severity, widths)
    start = at(severity, starts) + level * width - 1

    # A table's width is a power of two: bisection is adding ever smaller powers of two.
    def add(step: Array, number: Int[Array, "..."]) -> Int[Array, "..."]:
        probe = number + (width >> (step + 1))
        return jnp.where(flat[start + probe] <= uniform, probe, number)

    steps = at(severity, np.log2(widths).astype(int))
    return jax.lax.fori_loop(0, steps, add, jnp.zeros_like(level))


def _poisson_table(count: int) -> np.ndarray:
    """Return (256, 2^m) float64: the distribution function of every grey level's Poisson law."""
    # Ten standard deviations above the largest mean, plus some for small means.
    largest = count + 10 * math.sqrt(count) + 10
    width = 1 << math.ceil(math.log2(largest))
    means = np.arange(_LEVELS)[:, None] * count / 255.0
    numbers = np.arange(width)[None, :]
    log_factorial = np.cumsum(np.log(np.maximum(numbers, 1)), axis=1)
    log_mass = numbers * np.log(np.maximum(means, 1e-30)) - means - log_factorial
    distribution = np.cumsum(np.exp(log_mass), axis=1)
    # Nothing is above the last column.
    distribution[:, -1] = 2.0
    return distribution


def _small_poisson(mean: Float[Array, "..."], uniform: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return a Poisson variate of a small mean by adding up the distribution."""
    mass = jnp.exp(-mean)
    below = mass
    number = (uniform >= below).astype(jnp.float32)
    for n in range(1, _MAX_EXTRA_COUNT):
        mass = mass * mean / n
        below = below + mass
        number = number + (uniform >= below)
    return number
