"""The occlusion map (Zeiler and Fergus, arXiv 1311.2901, section 4.2).

A square of the preprocessing's mean colour is moved over the image; what the probability of the
class loses says how much the network needs what is behind it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lska_jax.analysis.intermediates import in_evaluation

SOURCE = "Zeiler and Fergus, arXiv 1311.2901, section 4.2"


class OcclusionMap(NamedTuple):
    """What is lost behind each position of the square.

    Attributes:
      drops: (rows, columns) float32, p(class | image) - p(class | image with the square).
      tops: (rows,), first row of pixels behind the square.
      lefts: (columns,), first column of pixels.
      window: side of the square, in pixels.
      label: the class.
      probability: of the class without a square.
    """

    drops: Float[np.ndarray, "rows columns"]
    tops: Int[np.ndarray, " rows"]
    lefts: Int[np.ndarray, " columns"]
    window: int
    label: int
    probability: float

    def over_pixels(self, height: int, width: int) -> Float[np.ndarray, "height width"]:
        """Return for each pixel the mean drop over the squares that cover it."""
        sums, counts = np.zeros((2, height, width))
        for top, row in zip(self.tops, self.drops, strict=True):
            for left, drop in zip(self.lefts, row, strict=True):
                behind = np.s_[top : top + self.window, left : left + self.window]
                sums[behind] += drop
                counts[behind] += 1
        return sums / np.maximum(counts, 1)


def occlusion_map(
    network: Any,
    image: Float[Array | np.ndarray, "height width channels"],
    label: int | None = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> OcclusionMap:
    """Return the occlusion map of an image.

    Args:
      network: of any family, with a classifier.
      image: (H, W, C), normalised, so that 0 is the mean colour.
      label: the class; None takes the most probable one.
      window: side of the square in pixels; None is about a fifth of the shorter side.
      stride: between positions; None is half the window. The last ones end with the image.
      batch_size: images that go through the network at once.

    Raises:
      ValueError: a window or stride that does not fit the image, no such class, or a network
        without a classifier.
    """
    height, width, _ = image.shape
    window = max(1, min(height, width) // 5) if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    classes = network.config.num_classes
    if not classes:
        raise ValueError("The network has no classifier, and an occlusion map is of a class.")
    if not 0 < window < min(height, width) or stride < 1 or batch_size < 1:
        raise ValueError(
            f"window={window}, stride={stride}, batch_size={batch_size}: give a window below "
            f"{min(height, width)} pixels, and positive numbers."
        )
    if label is not None and not 0 <= label < classes:
        raise ValueError(f"label={label}: give one from 0 to {classes - 1}.")
    tops, lefts = _starts(height, window, stride), _starts(width, window, stride)
    graph, state = nnx.split(in_evaluation(network))

    # The first square lies outside: the image as it is.
    places = [(height, width), *((int(top), int(left)) for top in tops for left in lefts)]
    filled = places + [(height, width)] * (-len(places) % batch_size)
    pixels, found = jnp.asarray(image, jnp.float32), []
    for start in range(0, len(filled), batch_size):
        at = np.asarray(filled[start : start + batch_size], np.int32)
        scores = _probabilities(state, pixels, at[:, 0], at[:, 1], graph=graph, window=window)
        found.append(np.asarray(scores))
    scores = np.concatenate(found)[: len(places)]
    label = int(np.argmax(scores[0])) if label is None else label
    drops = (scores[0, label] - scores[1:, label]).reshape(len(tops), len(lefts))
    return OcclusionMap(drops, tops, lefts, window, label, float(scores[0, label]))


@functools.partial(jax.jit, static_argnames=("graph", "window"))
def _probabilities(
    state: Any, image: Array, tops: Array, lefts: Array, *, graph: Any, window: int
) -> Array:
    """Return what the network says of an image with a square at each place."""
    height, width, _ = image.shape
    rows = jnp.arange(height)[None] - tops[:, None]
    columns = jnp.arange(width)[None] - lefts[:, None]
    is_behind = ((rows >= 0) & (rows < window))[:, :, None, None] & (
        (columns >= 0) & (columns < window)
    )[:, None, :, None]
    hidden = jnp.where(is_behind, jnp.float32(0), image[None])
    return jax.nn.softmax(nnx.merge(graph, state)(hidden), axis=-1)


def _starts(length: int, window: int, stride: int) -> Int[np.ndarray, " positions"]:
    return np.array(sorted({*range(0, length - window, stride), length - window}))
