"""Find objects in image files with a detector's model folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from lska_jax.data.decode import upright_pixels_of
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.mixing import normalise
from lska_jax.data.object_reader import ObjectReader
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.scenes import ObjectImage
from lska_jax.data.sources import BrokenImage
from lska_jax.models.fold import fold_for_inference
from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing
from lska_jax.running.inline_dispatch import wait_on_cpu
from lska_jax.tasks.detections import Detections, FoundObjects, as_found
from lska_jax.tasks.pictures.colours import Colour
from lska_jax.tasks.predict import class_colours_of, class_names_of
from lska_jax.weights.create import create_model
from lska_jax.weights.model_folder import read_facts

# Sides of a canvas are multiples of it, as the reference pads images.
CANVAS_STEP = 32


class ObjectPrediction(NamedTuple):
    """What a detector finds in one image.

    Attributes:
      image: path of the file.
      pixels: (H, W, 3) uint8; None for a broken image.
      found: the objects, best first; None for a broken image.
      class_names: of the labels, in their order.
      colours: of the classes, red, green and blue; None where the model names none.
      problem: why there are none, or "".
    """

    image: str
    pixels: np.ndarray | None
    found: FoundObjects | None
    class_names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    problem: str = ""


def predict_objects(
    pretrained: str | Path,
    images: Sequence[str | Path],
    *,
    max_image_pixels: int = MAX_PIXELS,
) -> Iterator[ObjectPrediction]:
    """Find objects in image files, in their order, one by one.

    Images are resized as the model's preprocessing says and put on a canvas, of which there are
    two at most, wide and upright: an evaluation during training sees the same.

    Args:
      pretrained: a model folder of a detector, or its Hub id.
      images: files of any format that Pillow reads.
      max_image_pixels: an image that declares more is broken.

    Raises:
      ValueError: the model is no detector, or its folder is damaged.
      FileNotFoundError: there is no such model.
    """
    facts = read_facts(pretrained)
    head = head_of(facts.config)
    if head is None or head.task != "detection":
        raise ValueError(f"{pretrained} finds no objects: it is {facts.description}.")
    model = fold_for_inference(create_model(pretrained=pretrained, compilation_cache="off"))
    prepared = facts.preprocessing
    answer = functools.partial(
        ObjectPrediction, class_names=class_names_of(facts), colours=class_colours_of(facts)
    )
    detect = jax.jit(functools.partial(_detect, model, prepared))
    readers = {
        canvas: ObjectReader(
            canvas=canvas, bounds=(prepared.long_side, prepared.image_size), max_objects=1
        )
        for canvas in canvases(prepared)
    }
    for image in map(str, images):
        try:
            pixels = upright_pixels_of(read_plain_file(image), max_pixels=max_image_pixels)
            is_wide = pixels.shape[1] > pixels.shape[0]
            read = readers[canvases(prepared)[0 if is_wide else 1]]
            fields = read(_without_objects(pixels))
        except BrokenImage as error:
            yield answer(image, None, None, problem=str(error))
            continue
        except OSError as error:
            yield answer(image, None, None, problem=error.strerror or str(error))
            continue
        placed = [jnp.asarray(fields[name][None]) for name in ("image", "size", "original_size")]
        detections = detect(*wait_on_cpu(placed))
        (found,) = as_found(jax.device_get(detections)).values()
        yield answer(image, pixels, found)


def canvases(preprocessing: Preprocessing) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the heights and widths that wide and upright images are padded to."""
    sides = (preprocessing.image_size, preprocessing.long_side)
    short, long = (-(-side // CANVAS_STEP) * CANVAS_STEP for side in sides)
    return (short, long), (long, short)


def normalise_inside(
    pixels: UInt8[Array, "batch height width 3"],
    sizes: Int[Array, "batch 2"],
    *,
    preprocessing: Preprocessing,
) -> Float[Array, "batch height width 3"]:
    """Return normalised images whose padding is zero.

    Args:
      pixels: images on their canvas.
      sizes: (B, 2), height and width of what is inside.
      preprocessing: whose mean and deviation are taken.
    """
    images = normalise(pixels, mean=preprocessing.mean, std=preprocessing.std)
    rows = jnp.arange(pixels.shape[1])[None] < sizes[:, :1]
    columns = jnp.arange(pixels.shape[2])[None] < sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], images, 0.0)


def _detect(
    model: Any, prepared: Preprocessing, pixels: jax.Array, sizes: jax.Array, original: jax.Array
) -> Detections:
    images = normalise_inside(pixels, sizes, preprocessing=prepared)
    scales = sizes.astype(jnp.float32) / original.astype(jnp.float32)
    found = model.detect(images, sizes, scales)
    return Detections(
        position=jnp.zeros(1, jnp.int32),
        original_size=original,
        boxes=found.boxes,
        scores=found.scores,
        labels=found.labels,
        is_found=found.is_valid,
        masks=found.masks,
    )


def _without_objects(pixels: np.ndarray) -> ObjectImage:
    return ObjectImage(
        image=pixels,
        size=(pixels.shape[0], pixels.shape[1]),
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int32),
        masks=None,
        position=0,
    )
