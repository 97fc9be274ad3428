"""Glass blur: pixels trade places with near neighbours between two blurs (arXiv 1903.12261).

The published generator walks over the image from the bottom right to the top left and assigns
``x[h, w], x[h', w'] = x[h', w'], x[h, w]`` to views of one array. That does not swap: the first
assignment overwrites what the second one reads, so pixel (h, w) becomes a copy of (h', w') and the
latter stays. The official images were made that way; ``faithful=False`` swaps.

A copy takes the neighbour as it is at that moment: already replaced if the walk has passed it. The
walk can be written without walking. Let s(p) be the pixel that p copies. If the walk comes to s(p)
after p, p gets the pixel that was there before; otherwise it gets what s(p) got, which is found
where s(p) leads. Following these links to their ends, by doubling, takes a handful of gathers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lska_jax.robustness.corruptions.filters import gaussian_filter, size_ratio, truncate_levels

# (sigma in pixels, largest displacement in pixels, number of walks) at severities 1 to 5.
GLASS_SETTINGS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))


def scaled_reach(reach: int, height: int, width: int) -> int:
    """Return the largest displacement for a size: a whole number, at least 1."""
    return max(round(reach * size_ratio(height, width)), 1)


def draw_displacements(
    key: jax.Array, height: int, width: int, *, reach: int, walks: int
) -> Int[Array, "walks height width 2"]:
    """Draw (down, right) in -reach..reach - 1 for each pixel and walk; reach is for 224 px."""
    limit = scaled_reach(reach, height, width)
    bits = jax.random.bits(key, (walks, height, width), jnp.uint32)
    # 16 bits a number: a value's chance is off by less than 1/65536.
    halves = jnp.stack([bits >> 16, bits & 0xFFFF], axis=-1).astype(jnp.int32)
    return (halves * (2 * limit) >> 16) - limit


def glass_blur(
    images: Float[Array, "batch height width 3"],
    displacements: Int[Array, "batch walks height width 2"],
    *,
    sigma: float,
    reach: int,
    faithful: bool,
) -> Float[Array, "batch height width 3"]:
    """Blur, truncate to grey levels, let pixels copy their neighbours, blur again.

    Sigma and reach are multiplied by the shorter side over 224. Pixels closer than ``reach`` to the
    border stay where they are.
    """
    batch, height, width, channels = images.shape
    sigma = sigma * size_ratio(height, width)
    limit = scaled_reach(reach, height, width)
    levels = truncate_levels(gaussian_filter(images, sigma=sigma))
    inside, sources = _sources(displacements, limit)
    move = _copied_from if faithful else _swapped_from
    # Walk after walk: what is at p now was, before the last walk, at move(...)[p].
    origin = jnp.broadcast_to(jnp.arange(height * width), (batch, height * width))
    for walk in range(displacements.shape[1]):
        origin = jnp.take_along_axis(origin, move(sources[:, walk], inside), axis=1)
    flat = levels.reshape(batch, height * width, channels)
    moved = jax.vmap(lambda image, index: image[index])(flat, origin)
    blurred = gaussian_filter(moved.reshape(images.shape) / 255.0, sigma=sigma)
    return jnp.clip(blurred, 0.0, 1.0)


def _sources(
    displacements: Int[Array, "batch walks height width 2"], limit: int
) -> tuple[np.ndarray, Int[Array, "batch walks pixels"]]:
    """Return which pixels the walk visits, (H W,) bool, and the flat index that each copies."""
    batch, walks, height, width, _ = displacements.shape
    row, column = np.arange(height)[:, None], np.arange(width)[None, :]
    inside = (row > limit) & (row <= height - limit) & (column > limit) & (column <= width - limit)
    index = row * width + column
    moved = index + displacements[..., 0] * width + displacements[..., 1]
    sources = jnp.where(inside, moved, index)
    return inside.reshape(-1), sources.reshape(batch, walks, height * width)


def _copied_from(
    sources: Int[Array, "batch pixels"], inside: np.ndarray
) -> Int[Array, "batch pixels"]:
    """Return the pixel, before the walk, that each pixel is a copy of after it.

    Links to pixels that the walk has already passed (larger index, inside) are followed; a link to
    any other pixel is an end, marked by adding the number of pixels.
    """
    pixels = sources.shape[1]
    index = jnp.arange(pixels)
    goes_on = (sources > index) & jnp.asarray(inside)[sources]
    links = jnp.where(goes_on, sources, sources + pixels)

    def jump(links: Int[Array, "batch pixels"]) -> Int[Array, "batch pixels"]:
        further = jnp.take_along_axis(links, links % pixels, axis=1)
        return jnp.where(links < pixels, further, links)

    ends = jax.lax.while_loop(lambda links: jnp.any(links < pixels), jump, links)
    return ends - pixels


def _swapped_from(
    sources: Int[Array, "batch pixels"], inside: np.ndarray
) -> Int[Array, "batch pixels"]:
    """Return the pixel that is at each place after a walk that really swaps, one by one."""
    visited = np.flatnonzero(inside)[::-1].astype(np.int32)
    batch = jnp.arange(sources.shape[0])
    start = jnp.broadcast_to(jnp.arange(sources.shape[1]), sources.shape)

    def swap(step: Array, origin: Int[Array, "batch pixels"]) -> Int[Array, "batch pixels"]:
        here = jnp.asarray(visited)[step]
        there = sources[:, here]
        at_here, at_there = origin[:, here], origin[batch, there]
        return origin.at[:, here].set(at_there).at[batch, there].set(at_here)

    return jax.lax.fori_loop(0, len(visited), swap, start)
