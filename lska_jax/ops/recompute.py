"""A function whose insides are not kept for its gradients, but computed again for them.

That is what ``jax.checkpoint`` is for, which saves nothing on CPU: XLA drops the barrier that it
puts in front of the second computation, and does that as early as it can. Here the second
computation reads the gradient that comes back, and so cannot begin before that.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from lska_jax.ops.platform import is_on_one_device, target_platform, vary_alike
from lska_jax.ops.reverse_mode import reverse_mode_only


@reverse_mode_only
def recompute(
    function: Callable[[Array, Any], Array],
    maps: Float[Array, "*pixels in_channels"],
    held: Any,
) -> Float[Array, "*pixels channels"]:
    """Return function(maps, held), of which on one CPU device only its arguments are kept.

    Elsewhere it is the function alone: XLA's other backends fuse what is cheap by themselves, and
    what the second computation reads may be split over devices in another way.

    Args:
      function: of maps, whose pixels stay where they are, and of ``held``. It has nothing random
        and closes over no array.
      maps: (..., in_channels).
      held: what else it takes, a tree of floating-point arrays.

    Returns:
      (..., C). Gradients are reverse mode.
    """
    if target_platform() != "cpu" or not is_on_one_device():
        return function(maps, held)
    return _recompute(function, *vary_alike((maps, held)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recompute(function: Callable[[Array, Any], Array], maps: Array, held: Any) -> Array:
    return function(maps, held)


def _forward(
    function: Callable[[Array, Any], Array], maps: Array, held: Any
) -> tuple[Array, tuple[Array, Any]]:
    return function(maps, held), (maps, held)


def _backward(
    function: Callable[[Array, Any], Array], kept: tuple[Array, Any], gradient: Array
) -> tuple[Array, Any]:
    maps, held = kept
    # Changes no number: where the gradient is not finite, neither is what comes of it.
    late = maps + 0.0 * gradient[..., :1].astype(maps.dtype)
    return jax.vjp(function, late, held)[1](gradient)


_recompute.defvjp(_forward, _backward)
