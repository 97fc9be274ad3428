"""Predict from Python: what ``lska-jax predict`` does, returned in place of printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lska_jax.data.limits import MAX_PIXELS

if TYPE_CHECKING:
    from lska_jax.tasks.predict import Prediction
    from lska_jax.tasks.predict_label_maps import LabelMapPrediction
    from lska_jax.tasks.predict_objects import ObjectPrediction


def predict(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    views: str = "one",
    max_image_pixels: int = MAX_PIXELS,
    compilation_cache: str | None = None,
) -> list[Prediction]:
    """Classify image files.

    Args:
      model: a model folder, a run, a step of it, a checkpoint file, a Hub id, or "cifar10", the
        model that comes with the package.
      images: one or several files, or folders, which are searched at any depth.
      top: how many classes to return for each.
      batch_size: images that go through the network at once.
      views: "one"; "flip" averages over each image and its mirror image, "ten" over ten crops.
      max_image_pixels: an image file of more is broken, whatever its format.
      compilation_cache: folder that keeps compiled programs, "off", or None for the usual one.

    Returns:
      One prediction for each image file, in their order; a broken image has a problem instead of
      scores.

    Raises:
      ValueError: a number is below 1, the model has no classifier, or a folder
        holds no image.
      FileNotFoundError: there is no such model or image.
    """
    from lska_jax.running.compilation_cache import keep_in_running_process
    from lska_jax.tasks import predict as task
    from lska_jax.training.model_places import as_model_folder

    places = [images] if isinstance(images, str | Path) else images
    found = task.find_images(places)
    keep_in_running_process(compilation_cache)
    with as_model_folder(model) as folder:
        return list(
            task.predict(
                folder,
                found,
                top=top,
                batch_size=batch_size,
                views=views,
                max_image_pixels=max_image_pixels,
            )
        )


def predict_objects(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    max_image_pixels: int = MAX_PIXELS,
    compilation_cache: str | None = None,
) -> list[ObjectPrediction]:
    """Find objects in image files with a detector; arguments are those of ``predict``.

    Returns:
      One prediction for each image file, in their order; a broken image has a problem instead of
      objects.

    Raises:
      ValueError: the model is no detector, or a folder holds no image.
      FileNotFoundError: there is no such model or image.
    """
    from lska_jax.running.compilation_cache import keep_in_running_process
    from lska_jax.tasks import predict_objects as task
    from lska_jax.tasks.predict import find_images
    from lska_jax.training.model_places import as_model_folder

    found = find_images([images] if isinstance(images, str | Path) else images)
    keep_in_running_process(compilation_cache)
    with as_model_folder(model) as folder:
        return list(task.predict_objects(folder, found, max_image_pixels=max_image_pixels))


def predict_label_maps(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    max_image_pixels: int = MAX_PIXELS,
    compilation_cache: str | None = None,
) -> list[LabelMapPrediction]:
    """Classify the pixels of image files with a segmentor; arguments are those of ``predict``.

    Returns:
      One prediction for each image file, in their order; a broken image has a problem instead of a
      label map.

    Raises:
      ValueError: the model is no segmentor, or a folder holds no image.
      FileNotFoundError: there is no such model or image.
    """
    from lska_jax.running.compilation_cache import keep_in_running_process
    from lska_jax.tasks import predict_label_maps as task
    from lska_jax.tasks.predict import find_images
    from lska_jax.training.model_places import as_model_folder

    found = find_images([images] if isinstance(images, str | Path) else images)
    keep_in_running_process(compilation_cache)
    with as_model_folder(model) as folder:
        return list(task.predict_label_maps(folder, found, max_image_pixels=max_image_pixels))
