"""What a detector found, over the image, and beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lska_jax.data.coco_masks import decode_mask
from lska_jax.data.decode import upright_pixels_of
from lska_jax.data.plain_resize import resize_nearest
from lska_jax.data.scenes import ObjectImage, ObjectSource
from lska_jax.data.sources import BrokenImage
from lska_jax.tasks.detections import FoundObjects
from lska_jax.tasks.pictures.colours import Colour
from lska_jax.tasks.pictures.objects import draw_objects
from lska_jax.tasks.pictures.sheet import draw_sheet

LEAST_SCORE = 0.3
_SHEET_WIDTH = 384


def draw_found(
    image: UInt8[np.ndarray, "height width 3"],
    found: FoundObjects,
    *,
    class_names: Sequence[str],
    colours: Sequence[Colour] | None = None,
    least_score: float = LEAST_SCORE,
) -> Image.Image:
    """Return an image with what was found in it.

    Args:
      image: pixels.
      found: what a detector says of it.
      class_names: in label order.
      colours: of the classes; None is ``class_colours``.
      least_score: of what is drawn.
    """
    return _draw(image, found, class_names, colours=colours, least_score=least_score)


def detection_sheet(
    found: Mapping[int, FoundObjects],
    source: ObjectSource,
    *,
    most: int = 8,
    least_score: float = LEAST_SCORE,
) -> Image.Image:
    """Return a sheet of images from all over a split, each truth beside what was found.

    The images are the same at every evaluation; broken ones are left out.

    Args:
      found: detections by position in the source.
      source: the split.
      most: how many images there are.
      least_score: of what is drawn.
    """
    positions = sorted(found)
    spread = np.linspace(0, len(positions) - 1, min(most, len(positions))).round().astype(int)
    rows = []
    for position in [positions[place] for place in spread.tolist()]:
        try:
            example = source[position]
            pixels = upright_pixels_of(example.image)
        except BrokenImage:
            continue
        truth = _draw(pixels, _truth(example), source.class_names, width=_SHEET_WIDTH)
        predicted = _draw(
            pixels,
            found[position],
            source.class_names,
            least_score=least_score,
            width=_SHEET_WIDTH,
        )
        rows.append((source.path(position), [truth, predicted]))
    titles = ("truth", f"predictions of {100 * least_score:.0f}% or more")
    return draw_sheet(rows, titles=titles, width=_SHEET_WIDTH)


def _truth(example: ObjectImage) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    return example.boxes, example.labels, example.masks


def _draw(
    image: np.ndarray,
    objects: FoundObjects | tuple[np.ndarray, np.ndarray, np.ndarray | None],
    class_names: Sequence[str],
    *,
    colours: Sequence[Colour] | None = None,
    least_score: float = 0.0,
    width: int | None = None,
) -> Image.Image:
    """Draw objects over an image, which is brought to a width first, so that text stays sharp."""
    height = image.shape[0]
    if isinstance(objects, FoundObjects):
        kept = np.flatnonzero(objects.scores >= least_score)
        boxes, scores, labels = (part[kept] for part in objects[:3])
        masks = None
        if objects.masks is not None:
            decoded = [
                decode_mask(objects.masks[number], height=height, width=image.shape[1])
                for number in kept.tolist()
            ]
            masks = np.array(decoded, bool).reshape(-1, *image.shape[:2])
    else:
        (boxes, labels, masks), scores = objects, None
    if width is not None:
        size = (max(1, round(height * width / image.shape[1])), width)
        scale = np.tile(np.array(size[::-1]) / image.shape[1::-1], 2).astype(np.float32)
        boxes = boxes * scale[None]
        image = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
        masks = None if masks is None else resize_nearest(masks, size)
    return draw_objects(
        image,
        boxes,
        labels=labels,
        class_names=class_names,
        scores=scores,
        masks=masks,
        colours=colours,
        least_side=512 if width is None else 1,
    )
