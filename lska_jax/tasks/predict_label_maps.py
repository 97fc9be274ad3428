"""Classify the pixels of image files with a segmentor's model folder."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from lska_jax.data.decode import upright_pixels_of
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.scene_moves import fit_move, pad_image
from lska_jax.data.sources import BrokenImage
from lska_jax.models.fold import fold_for_inference
from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing
from lska_jax.running.inline_dispatch import wait_on_cpu
from lska_jax.tasks.pictures.colours import Colour
from lska_jax.tasks.predict import class_colours_of, class_names_of
from lska_jax.tasks.predict_objects import CANVAS_STEP, normalise_inside
from lska_jax.tasks.segmentation import predict_classes
from lska_jax.weights.create import create_model
from lska_jax.weights.model_folder import read_facts


class LabelMapPrediction(NamedTuple):
    """What a segmentor says of one image.

    Attributes:
      image: path of the file.
      pixels: (H, W, 3) uint8; None for a broken image.
      label_map: (H, W) uint8, the class of each pixel; None for a broken image.
      class_names: of the classes, in their order.
      colours: of the classes, red, green and blue; None where the model names none.
      problem: why there is none, or "".
    """

    image: str
    pixels: np.ndarray | None
    label_map: np.ndarray | None
    class_names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    problem: str = ""


def predict_label_maps(
    pretrained: str | Path,
    images: Sequence[str | Path],
    *,
    max_image_pixels: int = MAX_PIXELS,
) -> Iterator[LabelMapPrediction]:
    """Classify the pixels of image files, in their order, one by one.

    Images are resized as the model's preprocessing says and padded to whole cells of the coarsest
    map; the logits are resized to the image's own size. Images of each size are compiled for.

    Args:
      pretrained: a model folder of a segmentor, or its Hub id.
      images: files of any format that Pillow reads.
      max_image_pixels: an image that declares more is broken.

    Raises:
      ValueError: the model is no segmentor, or its folder is damaged.
      FileNotFoundError: there is no such model.
    """
    facts = read_facts(pretrained)
    head = head_of(facts.config)
    if head is None or head.task != "segmentation":
        raise ValueError(f"{pretrained} classifies no pixels: it is {facts.description}.")
    model = fold_for_inference(create_model(pretrained=pretrained, compilation_cache="off"))
    prepared = facts.preprocessing
    answer = functools.partial(
        LabelMapPrediction, class_names=class_names_of(facts), colours=class_colours_of(facts)
    )
    classify = jax.jit(functools.partial(_classify, model, prepared), static_argnames="original")
    for image in map(str, images):
        try:
            pixels = upright_pixels_of(read_plain_file(image), max_pixels=max_image_pixels)
        except BrokenImage as error:
            yield answer(image, None, None, problem=str(error))
            continue
        except OSError as error:
            yield answer(image, None, None, problem=error.strerror or str(error))
            continue
        original = (pixels.shape[0], pixels.shape[1])
        move = fit_move(original, bounds=(prepared.long_side, prepared.image_size))
        height, width = (-(-side // CANVAS_STEP) * CANVAS_STEP for side in move.size)
        padded = pad_image(move.image(pixels), (height, width))
        placed = jnp.asarray(padded[None]), jnp.array([move.size], jnp.int32)
        label_map = classify(*wait_on_cpu(placed), original=original)
        yield answer(image, pixels, np.asarray(label_map))


def _classify(
    model: Any,
    prepared: Preprocessing,
    pixels: UInt8[Array, "1 height width 3"],
    size: Int[Array, "1 2"],
    *,
    original: tuple[int, int],
) -> UInt8[Array, "original_height original_width"]:
    logits = model(normalise_inside(pixels, size, preprocessing=prepared))
    return predict_classes(
        logits,
        input_size=(pixels.shape[1], pixels.shape[2]),
        image_size=size,
        original_size=jnp.array([original], jnp.int32),
        canvas=original,
    )[0]
