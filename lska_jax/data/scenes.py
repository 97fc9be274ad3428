"""What sources of dense prediction hold: images with objects, and images with a class a pixel.

Coordinates of boxes are in pixels, x1 y1 x2 y2, and x2 and y2 are far edges: the box around one
pixel in the upper left corner is 0 0 1 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from lska_jax.data.sources import Examples

# The label of pixels that count neither in a loss nor in an evaluation.
IGNORED_LABEL = 255


class ObjectImage(NamedTuple):
    """One image and the objects in it, none at all in some.

    Attributes:
      image: the bytes of an encoded image file, or pixels (H, W, 3) uint8.
      size: height and width that the annotations are for.
      boxes: (N, 4) float32, x1 y1 x2 y2.
      labels: (N,) int32, in [0, number of classes).
      masks: (N, H, W) bool, which pixels each object shows; None where they are not read.
      position: of the example in its source.
    """

    image: bytes | np.ndarray
    size: tuple[int, int]
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    position: int


class PixelLabels(NamedTuple):
    """One image and the class of each of its pixels.

    Attributes:
      image: the bytes of an encoded image file, or pixels (H, W, 3) uint8.
      label_map: (H, W) uint8; ``IGNORED_LABEL`` is no class.
      position: of the example in its source.
    """

    image: bytes | np.ndarray
    label_map: np.ndarray
    position: int


@runtime_checkable
class ObjectSource(Examples, Protocol):
    """Examples that are images with objects, and the truth that an evaluation compares with.

    Attributes:
      class_names: name of each class, in label order.
    """

    class_names: tuple[str, ...]

    @property
    def sizes(self) -> np.ndarray:
        """Heights and widths of the images, (number of images, 2)."""

    @property
    def most_objects(self) -> int:
        """The largest number of objects in one image."""

    def __getitem__(self, index: int) -> ObjectImage:
        """Return example ``index``, in [0, len); IndexError otherwise."""

    def image_id(self, index: int) -> int:
        """Return the id that results give image ``index``."""

    def category_id(self, label: int) -> int:
        """Return the id that results give a class."""

    def annotations(self) -> dict[str, Any]:
        """Return images, annotations and categories as a COCO instances file holds them."""
