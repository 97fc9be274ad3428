"""A branch of a network, some images after the others, where all at once do not fit into caches.

An FFN expands a map to several times its channels. On CPU the expanded maps of a whole batch go to
main memory and back between the operations; those of a few images stay in the last cache. In
training they are computed again in the backward pass, image by image: what is kept of the branch is
its input alone. (``jax.checkpoint`` of a whole branch saves nothing on CPU: XLA computes everything
again as early as it can, and keeps it. A loop it leaves as it is.)
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType
from jaxtyping import Array, Float

from lska_jax.ops.platform import target_platform
from lska_jax.ops.processor import usable_cores

# Of the largest map between, for each core. Not the size of a cache: the best of 2, 4 and 16 MB.
BYTES_A_CORE = 2**22


def in_turn(
    function: Callable[[Array], Array],
    images: Float[Array, "batch ..."],
    *,
    bytes_an_image: int,
) -> Float[Array, "batch ..."]:
    """Return function(images), computed for some images at a time where that is faster.

    Args:
      function: of images alone, each on its own; what else it takes of arrays, it holds. It has
        nothing random, and what it computes is computed again for its gradients.
      images: (B, ...).
      bytes_an_image: of the largest map that it makes between.
    """
    at_a_time = _images_at_a_time(images.shape[0], bytes_an_image)
    if at_a_time == images.shape[0]:
        return function(images)
    groups = images.reshape(-1, at_a_time, *images.shape[1:])
    # In a loop both passes are apart without a barrier.
    out = lax.map(jax.checkpoint(function, prevent_cse=False), groups)
    return out.reshape(-1, *out.shape[2:])


def _images_at_a_time(batch: Any, bytes_an_image: int) -> Any:
    """Return a divisor of the batch, or all of it where it is not to be divided."""
    if not isinstance(batch, int) or target_platform() != "cpu" or not _is_on_one_device():
        return batch
    most = max(1, BYTES_A_CORE * usable_cores() // max(bytes_an_image, 1))
    return max((n for n in range(1, min(batch, most) + 1) if batch % n == 0), default=batch)


def _is_on_one_device() -> bool:
    # A loop over a batch that is split over devices would bring all of it to each.
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return jax.device_count() == 1
    return math.prod(mesh.shape.values()) == 1 and AxisType.Explicit not in mesh.axis_types
