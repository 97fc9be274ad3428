"""Elastic transform: a random affine map, then a random smooth displacement (arXiv 1903.12261)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lska_jax.robustness.corruptions import random_numbers
from lska_jax.robustness.corruptions.filters import gaussian_filter, size_ratio, smoothed_spread
from lska_jax.robustness.corruptions.severities import Severity, at, switched


class ElasticSetting(NamedTuple):
    """The constants of one severity, in pixels at 224 px.

    Attributes:
      strength: factor of the smoothed displacement.
      sigma: of the Gaussian that smooths it.
      jitter: how far each of three corners moves at most, along each axis.
    """

    strength: float
    sigma: float
    jitter: float


# The generator's multiples of 244; its remark says that 224 was meant.
ELASTIC_SETTINGS = (
    ElasticSetting(244.0 * 2, 244 * 0.7, 244 * 0.1),
    ElasticSetting(244.0 * 2, 244 * 0.08, 244 * 0.2),
    ElasticSetting(244 * 0.05, 244 * 0.01, 244 * 0.02),
    ElasticSetting(244 * 0.07, 244 * 0.01, 244 * 0.02),
    ElasticSetting(244 * 0.12, 244 * 0.01, 244 * 0.02),
)

_TRUNCATE = 3.0


class ElasticDraws(NamedTuple):
    """What chance decides: ``corners`` (3, 2) and ``fields`` (2, H, W), uniform in [-1, 1)."""

    corners: Float[Array, "*batch 3 2"]
    fields: Float[Array, "*batch 2 height width"]


def draw_elastic(key: jax.Array, height: int, width: int) -> ElasticDraws:
    """Draw the corners' moves as (x, y), and the fields of x and of y, for one image."""
    corner_key, field_key = random_numbers.split(key)
    return ElasticDraws(
        random_numbers.uniform(corner_key, (3, 2), -1.0, 1.0),
        random_numbers.uniform(field_key, (2, height, width), -1.0, 1.0),
    )


def elastic_transform(
    images: Float[Array, "batch height width 3"], draws: ElasticDraws, *, severity: Severity
) -> Float[Array, "batch height width 3"]:
    """Warp by the affine map of three moved corners, then by a smoothed random field.

    Both warps interpolate linearly, one after the other; the first mirrors the borders about the
    outermost pixels, the second about their outer edges. All lengths are multiplied by the shorter
    side over 224, and the field's strength such that its displacement in pixels is, too.
    """
    batch, height, width, _ = images.shape
    ratio = size_ratio(height, width)
    jitter = at(severity, [setting.jitter for setting in ELASTIC_SETTINGS])
    rows, columns = _affine_positions(draws.corners * jitter * ratio, height, width)
    images = _sample(images, rows, columns, border="mirror")
    sigmas = [setting.sigma * ratio for setting in ELASTIC_SETTINGS]
    strength = at(severity, [_scaled_strength(setting, ratio) for setting in ELASTIC_SETTINGS])
    fields = draws.fields.reshape(batch * 2, height, width, 1)
    moves = strength * switched(severity, sigmas, _smoothed, fields)
    moves = moves.reshape(batch, 2, height, width)
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] + moves[:, 1]
    columns = jnp.arange(width, dtype=jnp.float32)[None, :] + moves[:, 0]
    return jnp.clip(_sample(images, rows, columns, border="reflect"), 0.0, 1.0)


def _scaled_strength(setting: ElasticSetting, ratio: float) -> float:
    if ratio == 1.0:
        return setting.strength
    # A narrower Gaussian averages less noise away; the displacement is to shrink with the size.
    spread = smoothed_spread(setting.sigma, truncate=_TRUNCATE)
    spread /= smoothed_spread(setting.sigma * ratio, truncate=_TRUNCATE)
    return setting.strength * ratio * spread


def _smoothed(
    sigma: float, fields: Float[Array, "fields height width 1"]
) -> Float[Array, "fields height width 1"]:
    return gaussian_filter(fields, sigma=sigma, border="reflect", truncate=_TRUNCATE)


def _affine_positions(
    moves: Float[Array, "batch 3 2"], height: int, width: int
) -> tuple[Float[Array, "batch height width"], Float[Array, "batch height width"]]:
    """Return where each pixel comes from if corners at c + (d, d), c + (d, -d), c - (d, d) move.

    c is the middle pixel and d a third of the shorter side; points are (x, y). OpenCV maps the old
    corners to the new ones and inverts that map; here it is solved for directly.
    """
    distance = min(height, width) // 3
    middle = jnp.asarray([width // 2, height // 2], jnp.float32)
    corners = middle + distance * jnp.asarray([[1, 1], [1, -1], [-1, -1]], jnp.float32)
    moved = corners + moves
    # Along the moved edges the old position changes by (0, 2 d) and by (2 d, 0).
    first, second = moved[:, 0] - moved[:, 1], moved[:, 1] - moved[:, 2]
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] - moved[:, 2, 0, None, None]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] - moved[:, 2, 1, None, None]

    def part(vector: Float[Array, "batch 2"]) -> tuple[Array, Array]:
        return vector[:, 0, None, None], vector[:, 1, None, None]

    (first_x, first_y), (second_x, second_y) = part(first), part(second)
    determinant = first_x * second_y - first_y * second_x
    along_first = (x * second_y - y * second_x) / determinant
    along_second = (first_x * y - first_y * x) / determinant
    rows = corners[2, 1] + 2 * distance * along_first
    columns = corners[2, 0] + 2 * distance * along_second
    return rows, columns


def _sample(
    images: Float[Array, "batch height width 3"],
    rows: Float[Array, "batch height width"],
    columns: Float[Array, "batch height width"],
    *,
    border: str,
) -> Float[Array, "batch height width 3"]:
    """Return images at fractional positions by linear interpolation between four pixels."""
    batch, height, width, channels = images.shape
    flat = images.reshape(batch, height * width, channels)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    row_pair = [_folded(top + i, height, border) * width for i in (0, 1)]
    column_pair = [_folded(left + i, width, border) for i in (0, 1)]

    def at(row: int, column: int) -> Float[Array, "batch height width 3"]:
        index = row_pair[row] + column_pair[column]
        return jax.vmap(lambda image, i: image[i])(flat, index)

    upper = at(0, 0) * (1 - right) + at(0, 1) * right
    lower = at(1, 0) * (1 - right) + at(1, 1) * right
    return upper * (1 - down) + lower * down


def _folded(index: Int[Array, "..."], size: int, border: str) -> Int[Array, "..."]:
    """Mirror indices back into 0..size-1, about pixels ("mirror") or their edges ("reflect")."""
    repeat = 0 if border == "reflect" else 1
    period = max(2 * (size - repeat), 1)
    within = jnp.mod(index, period)
    return jnp.where(within < size, within, 2 * size - 1 - repeat - within)
