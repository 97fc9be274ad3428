"""Mean over windows that share out a map evenly, whatever its size.

Window i of n along an axis of length L goes from floor(i L / n) to ceil((i + 1) L / n): windows
overlap where n does not divide L, and repeat pixels where L is below n. It is PyTorch's adaptive
average pooling.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def adaptive_mean(
    maps: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch side side channels"]:
    """Return the means over side x side windows.

    Args:
      maps: (B, H, W, C), float32 or bfloat16, H and W from 1 on.
      side: windows along each axis.

    Returns:
      (B, side, side, C) in the dtype of ``maps``, summed in float32.
    """
    wide = maps.astype(jnp.float32)
    for axis in (1, 2):
        wide = _mean_along(wide, axis, side)
    return wide.astype(maps.dtype)


def _mean_along(x: Array, axis: int, windows: int) -> Array:
    length = x.shape[axis]
    if length == windows:
        return x
    if length % windows == 0:
        split = (*x.shape[:axis], windows, length // windows, *x.shape[axis + 1 :])
        return jnp.mean(x.reshape(split), axis=axis + 1)
    bounds = [(i * length // windows, -((i + 1) * length // -windows)) for i in range(windows)]
    means = (
        jnp.mean(lax.slice_in_dim(x, first, end, axis=axis), axis, keepdims=True)
        for first, end in bounds
    )
    return jnp.concatenate(list(means), axis)
