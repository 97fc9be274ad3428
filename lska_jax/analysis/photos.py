"""A model from any place and photos as it sees them, for whoever looks inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from lska_jax.data.augment import EvalTransform
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.mixing import normalise
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.sources import BrokenImage
from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing
from lska_jax.tasks.predict import class_names_of, eval_transform
from lska_jax.training.model_places import as_model_folder, model_name
from lska_jax.weights.create import create_model
from lska_jax.weights.model_folder import read_facts


class LoadedModel(NamedTuple):
    """A model with what is known of it.

    Attributes:
      name: short, for titles.
      network: in evaluation mode, float32, not folded.
      preprocessing: of its images.
      class_names: of its logits.
      max_image_pixels: a photo that declares more is broken.
    """

    name: str
    network: Any
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    max_image_pixels: int = MAX_PIXELS

    def transform(self) -> EvalTransform:
        """Return what makes pixels of the bytes of a photo."""
        return eval_transform(self.preprocessing, max_image_pixels=self.max_image_pixels)

    def normalise(
        self, pixels: UInt8[np.ndarray, "batch height width channels"]
    ) -> Float[np.ndarray, "batch height width channels"]:
        """Return what the network is given of pixels."""
        mean, std = self.preprocessing.mean, self.preprocessing.std
        return np.asarray(normalise(jnp.asarray(pixels), mean=mean, std=std))


class Photo(NamedTuple):
    """An image file as a model sees it.

    Attributes:
      path: of the file.
      pixels: (H, W, C), resized and cropped.
    """

    path: Path
    pixels: UInt8[np.ndarray, "height width channels"]


def load_model(
    place: str | Path,
    *,
    image_size: int | None = None,
    max_image_pixels: int = MAX_PIXELS,
    report: Callable[[str], None] = print,
) -> LoadedModel:
    """Return the model of a place.

    Args:
      place: whatever ``training.model_places.read_model`` takes, also for what is raised.
      image_size: side of its images in place of that of its preprocessing.
      max_image_pixels: a photo that declares more is broken.
      report: receives remarks, one line each.

    Raises:
      ValueError: a detector or segmentor.
    """
    with as_model_folder(place, report=report) as folder:
        facts = read_facts(folder)
        if head := head_of(facts.config):
            raise ValueError(
                f"{place} has the head {head.title}; only networks for classes are explained, such "
                "as its backbone alone."
            )
        network = create_model(pretrained=folder, dtype="float32", compilation_cache="off")
    network.eval()
    preprocessing = facts.preprocessing
    if image_size is not None:
        preprocessing = preprocessing._replace(image_size=image_size)
    return LoadedModel(
        model_name(place), network, preprocessing, class_names_of(facts), max_image_pixels
    )


def read_photos(paths: Sequence[str | Path], model: LoadedModel) -> list[Photo]:
    """Return image files as a model sees them.

    Raises:
      ValueError: a file that is no image; it is named.
      OSError: a file that cannot be read.
    """
    transform = model.transform()
    photos = []
    for path in map(Path, paths):
        try:
            photos.append(Photo(path, transform(read_plain_file(path))))
        except BrokenImage as error:
            raise ValueError(f"{path}: {error}") from error
    return photos
