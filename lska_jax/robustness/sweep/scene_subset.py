"""Some images of a source of dense prediction, as a source of their own."""

from __future__ import annotations

from typing import Any

import numpy as np


class SceneSubset:
    """Some examples of a source; see ``data.scenes``.

    Args:
      source: of images with objects, or with a class a pixel.
      kept: positions, ascending.
    """

    def __init__(self, source: Any, kept: np.ndarray) -> None:
        self._source, self._kept = source, kept
        self.name = f"{len(kept)} images of {source.name}"
        self.class_names = source.class_names

    def __len__(self) -> int:
        """Return how many examples there are."""
        return len(self._kept)

    def __getitem__(self, index: int) -> Any:
        """Return example ``index``, with its position here."""
        return self._source[int(self._kept[index])]._replace(position=index)

    @property
    def sizes(self) -> np.ndarray:
        """Heights and widths of the images, (number of images, 2)."""
        sizes: np.ndarray = self._source.sizes[self._kept]
        return sizes

    @property
    def most_objects(self) -> int:
        """The largest number of objects in one image, at most."""
        return int(self._source.most_objects)

    def path(self, index: int) -> str:
        """Return the path of image ``index``."""
        path: str = self._source.path(int(self._kept[index]))
        return path

    def image_id(self, index: int) -> int:
        """Return the id that results give image ``index``."""
        return int(self._source.image_id(int(self._kept[index])))

    def category_id(self, label: int) -> int:
        """Return the id that results give a class."""
        return int(self._source.category_id(label))

    def annotations(self) -> dict[str, Any]:
        """Return what a COCO instances file of these images would hold."""
        content = self._source.annotations()
        kept = {self.image_id(index) for index in range(len(self))}
        images = [image for image in content["images"] if image["id"] in kept]
        annotations = [one for one in content["annotations"] if one["image_id"] in kept]
        return {**content, "images": images, "annotations": annotations}
