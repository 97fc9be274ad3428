"""Test-time augmentation: the mean of what a model says of several views of an image.

"flip" is an image and its mirror image. "ten" is the ten crops of AlexNet (Krizhevsky and others,
2012, section 4.1): four corners and the centre of the square that the centre is usually cut out of,
and their mirror images. Probabilities are averaged, not logits.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

ONE, FLIP, TEN = "one", "flip", "ten"
VIEWS = (ONE, FLIP, TEN)
# Of a view that is sure, the logarithm has to stay finite.
_SMALLEST = 1e-30


def average_views(
    logits_of: Callable[[Array], Float[Array, "batch classes"]],
    images: UInt8[Array, "batch *views height width channels"],
    *,
    views: str,
    is_multi_label: bool = False,
) -> Float[Array, "batch classes"]:
    """Return logits whose probabilities are the mean over the views.

    Args:
      logits_of: the model: pixels (B, H, W, C) -> logits.
      images: (B, H, W, C); for "ten" (B, 5, H, W, C), the five crops.
      views: one of ``VIEWS``.
      is_multi_label: whether probabilities are a sigmoid of each logit, not the softmax.
    """
    if views == ONE:
        return logits_of(images)
    crops = [images] if images.ndim == 4 else [images[:, n] for n in range(images.shape[1])]
    every = [view for crop in crops for view in (crop, crop[:, :, ::-1])]
    logits = [logits_of(view).astype(jnp.float32) for view in every]
    if is_multi_label:
        there = _mean([jax.nn.sigmoid(x) for x in logits])
        absent = _mean([jax.nn.sigmoid(-x) for x in logits])
        return jnp.log(jnp.maximum(there, _SMALLEST)) - jnp.log(jnp.maximum(absent, _SMALLEST))
    return jnp.log(jnp.maximum(_mean([jax.nn.softmax(x) for x in logits]), _SMALLEST))


def _mean(arrays: list[Array]) -> Array:
    return sum(arrays[1:], start=arrays[0]) / len(arrays)
