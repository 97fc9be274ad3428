"""What a task makes of stored examples: named arrays of fixed shapes, ready to be stacked.

A *reader* turns one stored example into *fields*; batches are the fields of many examples, with
the loader's ``mask`` and ``index`` beside them. A task decides what they are: an image and its
class, an image and boxes padded to a fixed number, an image and a map of its size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lska_jax.data.sources import Record


class Field(NamedTuple):
    """One named array of an example.

    Attributes:
      shape: without the batch.
      dtype: of NumPy, e.g. ``np.uint8``.
      fill: what rows hold that stand for no example: padding and broken images.
    """

    shape: tuple[int, ...]
    dtype: Any
    fill: int | float = 0

    @property
    def num_bytes(self) -> int:
        """Size of one example's array in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def blank(self) -> np.ndarray:
        """Return the array of a row that stands for no example."""
        return np.full(self.shape, self.fill, self.dtype)


Fields = Mapping[str, Field]


@runtime_checkable
class Reader(Protocol):
    """Turns one stored example into fields; picklable, for worker processes.

    Attributes:
      fields: name, shape and dtype of every array of an example; not "mask" and not "index".
    """

    fields: Fields

    def __call__(self, example: Any, *rng: np.random.Generator) -> Mapping[str, Any]:
        """Return the fields of one example.

        Args:
          example: what the source holds.
          *rng: for training, the generator that augmentation draws from; none for evaluation.

        Raises:
          BrokenImage: the example cannot be decoded; its row is masked.
        """


class LabelledImages:
    """Reads the records of an image classification set.

    Args:
      transform: (encoded or uint8 image[, generator]) -> uint8 (S, S, C). Its attributes
        ``image_size`` and ``channels`` tell the shape.
      num_labels: K, where an image has any number of labels; None where it has one.
    """

    def __init__(
        self, transform: Callable[..., np.ndarray], *, num_labels: int | None = None
    ) -> None:
        shape: Any = transform
        size: tuple[int, ...] = (shape.image_size, shape.image_size, shape.channels)
        if getattr(transform, "has_five_crops", False):
            size = (5, *size)
        self.fields: Fields = {
            # Mid-grey is what normalisation maps to about zero: it hardly moves BatchNorm's means.
            "image": Field(size, np.uint8, fill=128),
            "label": Field(() if num_labels is None else (num_labels,), np.int32),
        }
        self._transform = transform

    def __call__(self, example: Record, *rng: np.random.Generator) -> dict[str, Any]:
        """Return image (S, S, C) uint8 and label, an int or (K,); see ``Reader``."""
        return {"image": self._transform(example.image, *rng), "label": example.label}
