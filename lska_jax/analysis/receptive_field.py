"""The effective receptive field: how much each pixel weighs at the centre of a map.

Luo et al., "Understanding the Effective Receptive Field" (arXiv 1701.04128), as RepLKNet measures
it (arXiv 2203.06717, section 4 and its code, erf/visualize_erf.py and analyze_erf.py):

    P = mean over images of sum over colours of relu(d sum_c relu(M[h // 2, w // 2, c]) / d image)
    A = log10(P + 1)

and the smallest square around the image's centre that holds more than a share t of A's sum has the
side that the paper's table shows for t = 20, 30, 50 and 99 %. A grows with the scale of the
gradients, so that networks can be compared whose maps are normalised alike; the squares of P
itself do not depend on it, and stand beside.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lska_jax.analysis.intermediates import in_evaluation

SHARES = (0.2, 0.3, 0.5, 0.99)
SOURCE = "arXiv 1701.04128; as in arXiv 2203.06717, section 4 and its code"


class Extent(NamedTuple):
    """The smallest centred square that holds a share of all contributions.

    Attributes:
      share: in (0, 1).
      side: of the square, in pixels; None where no square smaller than the image holds it.
      area_ratio: of the square to the image; None alike.
    """

    share: float
    side: int | None
    area_ratio: float | None


def receptive_field(
    network: Any, images: Float[Array | np.ndarray, "batch height width channels"]
) -> dict[str, Float[np.ndarray, "height width"]]:
    """Return P of every map of a network, by the map's name.

    Args:
      network: of any family.
      images: (B, H, W, C), normalised; the published tables have 50 of 1024 x 1024.

    Returns:
      {name: (H, W) float64}, for maps with rows and columns.

    Raises:
      ValueError: a gradient that is not finite.
    """
    graph, state = nnx.split(in_evaluation(network))
    infos = [info for info in network.feature_info if info.stride is not None]

    def maps(state: Any, images: Array) -> list[Array]:
        found = nnx.merge(graph, state).features(images)._asdict()
        return [found[info.name] for info in infos]

    found = contributions(maps, state, images, count=len(infos))
    return {info.name: field for info, field in zip(infos, found, strict=True)}


def contributions(
    maps: Callable[[Any, Array], Sequence[Array]],
    state: Any,
    images: Float[Array | np.ndarray, "batch height width channels"],
    *,
    count: int,
) -> list[Float[np.ndarray, "height width"]]:
    """Return P of some maps; see ``receptive_field``.

    Args:
      maps: of a state and images (1, H, W, C) -> maps (1, h, w, c).
      state: passed on; arrays that the program should not hold as constants.
      images: (B, H, W, C).
      count: of the maps.
    """

    @jax.jit
    def one(state: Any, image: Array, choice: Array) -> Array:
        def centre(image: Array) -> Array:
            # One program for all maps: a sum of which all but one have the weight 0.
            of_maps = [
                jnp.sum(
                    jax.nn.relu(found[:, found.shape[1] // 2, found.shape[2] // 2]),
                    dtype=jnp.float32,
                )
                for found in maps(state, image)
            ]
            return jnp.sum(jnp.stack(of_maps) * choice, dtype=jnp.float32)

        return jnp.sum(jax.nn.relu(jax.grad(centre)(image)), axis=(0, 3))

    totals = []
    for choice in np.eye(count, dtype=np.float32):
        total = np.zeros(images.shape[1:3], np.float64)
        for image in images:
            total += np.asarray(one(state, jnp.asarray(image, jnp.float32)[None], choice))
        totals.append(total / len(images))
    if not np.isfinite(totals).all():
        raise ValueError("The gradient of a map's centre is not finite; check the weights.")
    return totals


def extents(
    field: Float[np.ndarray, "height width"],
    *,
    shares: Sequence[float] = SHARES,
    is_logarithmic: bool = True,
) -> list[Extent]:
    """Return the squares that hold shares of the contributions.

    Args:
      field: P of a map.
      shares: each in (0, 1).
      is_logarithmic: take A = log10(P + 1), as the published tables do, in place of P.
    """
    scores = np.log10(field + 1) if is_logarithmic else field
    height, width = scores.shape
    centre = (height // 2, width // 2)
    reaches = range(1, max(2, min(height, width) // 2))
    held = np.array([np.sum(_square(scores, centre, reach)) for reach in reaches])
    whole = np.sum(scores)
    found = []
    for share in shares:
        enough = np.flatnonzero(held > share * whole)
        side = 2 * reaches[enough[0]] + 1 if len(enough) else None
        found.append(Extent(share, side, None if side is None else side**2 / (height * width)))
    return found


def _square(scores: np.ndarray, centre: tuple[int, int], reach: int) -> np.ndarray:
    rows, columns = (slice(max(0, at - reach), at + reach + 1) for at in centre)
    return scores[rows, columns]
