"""A branch of a network, some images after the others, where all at once do not fit into caches.

An FFN expands a map to several times its channels. On CPU the expanded maps of a whole batch go to
main memory and back between the operations; those of a few images stay in the last cache.

Gradients need those maps again. Kept, they go to main memory anyway, and to compute them again
image by image takes longer than that: so a branch that is differentiated is computed at once, or,
for less memory, in turn in both passes. (``jax.checkpoint`` of a whole branch saves nothing on CPU:
XLA computes everything again as early as it can, and keeps it. A loop it leaves as it is.)
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from lska_jax.ops import two_forms
from lska_jax.ops.platform import is_on_one_device, target_platform
from lska_jax.ops.processor import usable_cores
from lska_jax.ops.reverse_mode import reverse_mode_only

# Of the largest map between, for each core. Not the size of a cache: the best of 2, 4 and 16 MB.
BYTES_A_CORE = 2**22


@reverse_mode_only
def in_turn(
    function: Callable[[Array, Any], Array],
    images: Float[Array, "batch ..."],
    held: Any,
    *,
    bytes_an_image: int,
    remat: bool = False,
) -> Float[Array, "batch ..."]:
    """Return function(images, held), computed for some images at a time where that is faster.

    Args:
      function: of images, each on its own, and of ``held``. It has nothing random, and what it
        computes may be computed again for its gradients.
      images: (B, ...).
      held: what else it takes, a tree of floating-point arrays.
      bytes_an_image: of the largest map that it makes between.
      remat: whether nothing else is kept for the gradients, which are then computed in turn too.

    Returns:
      (B, ...). Gradients are reverse mode.
    """
    at_a_time = _images_at_a_time(images.shape[0], bytes_an_image)
    if at_a_time == images.shape[0]:
        return function(images, held)
    if remat:
        # In a loop both passes are apart without a barrier.
        function = jax.checkpoint(function, prevent_cse=False)
        return _loop(function, at_a_time, images, held)
    return two_forms.apply(functools.partial(_loop, function, at_a_time), function, images, held)


def _loop(
    function: Callable[[Array, Any], Array], at_a_time: int, images: Array, held: Any
) -> Array:
    groups = images.reshape(-1, at_a_time, *images.shape[1:])
    out = lax.map(lambda some: function(some, held), groups)
    return out.reshape(-1, *out.shape[2:])


def _images_at_a_time(batch: Any, bytes_an_image: int) -> Any:
    """Return a divisor of the batch, or all of it where it is not to be divided."""
    # A loop over a batch that is split over devices would bring all of it to each.
    if not isinstance(batch, int) or target_platform() != "cpu" or not is_on_one_device():
        return batch
    most = max(1, BYTES_A_CORE * usable_cores() // max(bytes_an_image, 1))
    return max((n for n in range(1, min(batch, most) + 1) if batch % n == 0), default=batch)
