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
from jaxtyping import Array, Bool, Float, Int

from lska_jax.robustness.corruptions import random_numbers
from lska_jax.robustness.corruptions.filters import gaussian_filter, size_ratio, truncate_levels
from lska_jax.robustness.corruptions.severities import Severity, at, switched

# (sigma in pixels, largest displacement in pixels, number of walks) at severities 1 to 5.
GLASS_SETTINGS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))


def scaled_reach(reach: int, height: int, width: int) -> int:
    """Return the largest displacement for a size: a whole number, at least 1."""
    return max(round(reach * size_ratio(height, width)), 1)


def draw_displacements(
    key: jax.Array, height: int, width: int, *, severity: Severity
) -> Int[Array, "walks height width 2"]:
    """Draw (down, right) in -reach..reach - 1 for each pixel and walk.

    As many walks as any severity has: one that has fewer takes the first of them.
    """
    limit = _reach(severity, height, width)
    walks = max(walks for _, _, walks in GLASS_SETTINGS)
    bits = random_numbers.bits(key, (walks, height, width))
    # 16 bits a number: a value's chance is off by less than 1/65536.
    halves = jnp.stack([bits >> 16, bits & 0xFFFF], axis=-1).astype(jnp.int32)
    return (halves * (2 * limit) >> 16) - limit


def glass_blur(
    images: Float[Array, "batch height width 3"],
    displacements: Int[Array, "batch walks height width 2"],
    *,
    severity: Severity,
    faithful: bool,
) -> Float[Array, "batch height width 3"]:
    """Blur, truncate to grey levels, let pixels copy their neighbours, blur again.

    Sigma and reach are multiplied by the shorter side over 224. Pixels closer than the reach to the
    border stay where they are.
    """
    batch, height, width, channels = images.shape
    sigmas = [sigma * size_ratio(height, width) for sigma, _, _ in GLASS_SETTINGS]

    def blurred(images: Float[Array, "..."]) -> Float[Array, "..."]:
        return switched(severity, sigmas, lambda s, x: gaussian_filter(x, sigma=s), images)

    levels = truncate_levels(blurred(images))
    inside, sources = _sources(displacements, _reach(severity, height, width))
    move = _copied_from if faithful else _swapped_from

    def walk(number: Array, origin: Int[Array, "..."]) -> Int[Array, "..."]:
        # What is at p now was, before this walk, at move(...)[p].
        return jnp.take_along_axis(origin, move(sources[:, number], inside), axis=1)

    start = jnp.broadcast_to(jnp.arange(height * width), (batch, height * width))
    walks = at(severity, [walks for _, _, walks in GLASS_SETTINGS])
    origin = jax.lax.fori_loop(0, walks, walk, start)
    flat = levels.reshape(batch, height * width, channels)
    moved = jax.vmap(lambda image, index: image[index])(flat, origin)
    return jnp.clip(blurred(moved.reshape(images.shape) / 255.0), 0.0, 1.0)


def _reach(severity: Severity, height: int, width: int) -> Int[Array, ""]:
    return at(severity, [scaled_reach(reach, height, width) for _, reach, _ in GLASS_SETTINGS])


def _sources(
    displacements: Int[Array, "batch walks height width 2"], limit: Int[Array, ""]
) -> tuple[Bool[Array, " pixels"], Int[Array, "batch walks pixels"]]:
    """Return which pixels the walk visits, (H W,), and the flat index that each copies."""
    batch, walks, height, width, _ = displacements.shape
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    rows = (row > limit) & (row <= height - limit)
    inside = rows & ((column > limit) & (column <= width - limit))
    index = row * width + column
    moved = index + displacements[..., 0] * width + displacements[..., 1]
    sources = jnp.where(inside, moved, index)
    return inside.reshape(-1), sources.reshape(batch, walks, height * width)


def _copied_from(
    sources: Int[Array, "batch pixels"], inside: Bool[Array, " pixels"]
) -> Int[Array, "batch pixels"]:
    """Return the pixel, before the walk, that each pixel is a copy of after it.

    Links to pixels that the walk has already passed (larger index, inside) are followed; a link to
    any other pixel is an end, marked by adding the number of pixels.
    """
    pixels = sources.shape[1]
    index = jnp.arange(pixels)
    goes_on = (sources > index) & inside[sources]
    links = jnp.where(goes_on, sources, sources + pixels)

    def jump(links: Int[Array, "batch pixels"]) -> Int[Array, "batch pixels"]:
        further = jnp.take_along_axis(links, links % pixels, axis=1)
        return jnp.where(links < pixels, further, links)

    ends = jax.lax.while_loop(lambda links: jnp.any(links < pixels), jump, links)
    return ends - pixels


def _swapped_from(
    sources: Int[Array, "batch pixels"], inside: Bool[Array, " pixels"]
) -> Int[Array, "batch pixels"]:
    """Return the pixel that is at each place after a walk that really swaps, one by one.

    A pixel that the walk does not visit is its own source: it swaps with itself.
    """
    del inside
    pixels = sources.shape[1]
    batch = jnp.arange(sources.shape[0])
    start = jnp.broadcast_to(jnp.arange(pixels), sources.shape)

    def swap(step: Array, origin: Int[Array, "batch pixels"]) -> Int[Array, "batch pixels"]:
        here = pixels - 1 - step
        there = sources[:, here]
        at_here, at_there = origin[:, here], origin[batch, there]
        return origin.at[:, here].set(at_there).at[batch, there].set(at_here)

    return jax.lax.fori_loop(0, pixels, swap, start)
