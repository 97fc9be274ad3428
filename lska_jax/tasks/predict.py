"""Classify image files with a model folder."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from lska_jax.data.augment import EvalTransform
from lska_jax.data.class_folders import IMAGE_SUFFIXES
from lska_jax.data.examples import LabelledImages
from lska_jax.data.folder_tree import FolderTree
from lska_jax.data.limits import MAX_PIXELS
from lska_jax.data.plain_file import read_plain_file
from lska_jax.data.sources import BrokenImage
from lska_jax.models.heads import head_of
from lska_jax.models.table import Preprocessing
from lska_jax.tasks.engines import (
    EXPORT_AGAIN,
    JAX,
    check_engine,
    is_onnx_file,
    load_network,
    read_onnx_file,
)
from lska_jax.tasks.pictures.colours import Colour
from lska_jax.tasks.predict_in_jax import probabilities_in_jax
from lska_jax.tasks.views import ONE, TEN, VIEWS, average_views
from lska_jax.weights.model_facts import ModelFacts
from lska_jax.weights.model_folder import read_facts

_NOT_FINITE = (
    "the model's outputs for it are not finite (NaN or infinity); its weights are damaged, or its "
    "training diverged."
)


class ClassScore(NamedTuple):
    """One of an image's best classes.

    Attributes:
      label: index of the class.
      name: of the class.
      probability: softmax of the logits, in [0, 1]; their sigmoid where an image has any number of
        labels.
    """

    label: int
    name: str
    probability: float


class Prediction(NamedTuple):
    """What a model says about one image.

    Attributes:
      image: path of the file.
      scores: the best classes, best first; empty for a broken image.
      problem: why there are none, or "".
    """

    image: str
    scores: list[ClassScore]
    problem: str = ""


def predict(
    pretrained: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    views: str = ONE,
    max_image_pixels: int = MAX_PIXELS,
    engine: str = JAX,
) -> Iterator[Prediction]:
    """Classify image files, in their order, batch by batch.

    Args:
      pretrained: a model folder, its Hub id, or published weights such as "convnext_tiny.fb_in1k";
        for another engine also an ONNX file that ``lska-jax export`` wrote.
      images: files of any format that Pillow reads.
      top: how many classes to return for each.
      batch_size: images that go through the network at once.
      views: of each image whose probabilities are averaged: "one", "flip" or "ten", see
        ``lska_jax.tasks.views``.
      max_image_pixels: an image file of more is broken, whatever its format.
      engine: that runs the network, one of ``engines.ENGINES``; for another than JAX a folder's
        model is written as ONNX first.

    Raises:
      ValueError: unknown views or engine, a number below 1, a model without a classifier, or a
        damaged folder or file.
      FileNotFoundError: there is no such model.
      ImportError: the engine is not installed.
    """
    check_engine(engine)
    if top < 1 or batch_size < 1:
        raise ValueError(f"top and batch_size must be positive, got {top} and {batch_size}.")
    if views not in VIEWS:
        raise ValueError(f"views={views!r} is unknown; allowed: {', '.join(VIEWS)}.")
    if is_onnx_file(pretrained):
        if engine == JAX:
            raise ValueError(f"{pretrained} is for another engine: onnxruntime or openvino.")
        facts, file = read_onnx_file(pretrained)
    else:
        facts, file = read_facts(pretrained), b""
    if head := head_of(facts.config):
        raise ValueError(
            f"{pretrained} is no classifier but {head.title}; call "
            "lska_jax.tasks.predict_objects.predict_objects, or lska-jax predict."
        )
    if not facts.config.num_classes:
        raise ValueError(f"{pretrained} has no classifier: it returns features, not classes.")
    transform = dataclasses.replace(
        eval_transform(facts.preprocessing, max_image_pixels=max_image_pixels),
        has_five_crops=views == TEN,
    )
    (shape, _) = LabelledImages(transform).fields["image"][:2]
    names = class_names_of(facts)
    if engine == JAX:
        probabilities = probabilities_in_jax(
            pretrained, facts, views=views, is_one_batch=len(images) <= batch_size
        )
    else:
        if not file:
            from lska_jax.weights.create import create_model
            from lska_jax.weights.export_onnx import export_onnx

            file = export_onnx(
                create_model(pretrained=pretrained, compilation_cache="off"),
                facts=facts,
                engine=engine,
            )
        network = load_network(file, engine, name=str(pretrained))
        probabilities = _in_engine(network, facts, views)

    # One shape, hence one compilation; the last batch is filled up.
    size = min(batch_size, max(len(images), 1))
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), size):
            batch = [str(image) for image in images[start : start + size]]
            decoded = list(pool.map(lambda image: _decode(image, transform), batch))
            pixels = np.zeros((size, *shape), np.uint8)
            for row, item in enumerate(decoded):
                if not isinstance(item, str):
                    pixels[row] = item
            scores = probabilities(pixels)
            for image, item, row_scores in zip(batch, decoded, scores, strict=False):
                if isinstance(item, str):
                    yield Prediction(image, [], item)
                elif not np.isfinite(row_scores).all():
                    yield Prediction(image, [], _NOT_FINITE)
                else:
                    yield Prediction(image, _best(row_scores, names, top))


def _in_engine(
    network: Callable[[np.ndarray], np.ndarray], facts: ModelFacts, views: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the same function, the network of which is not run by JAX."""
    mean = np.asarray(facts.preprocessing.mean, np.float32)
    std = np.asarray(facts.preprocessing.std, np.float32)

    def logits_of(pixels: Any) -> np.ndarray:
        logits = network((np.asarray(pixels, np.float32) / np.float32(255) - mean) / std)
        wanted = (len(pixels), facts.config.num_classes)
        if logits.shape != wanted:
            raise ValueError(
                f"The network's output is {logits.shape}; for {len(pixels)} images and the "
                f"{facts.config.num_classes} classes of its metadata it must be {wanted}. "
                f"{EXPORT_AGAIN}"
            )
        # One that is infinite could be hidden by the probabilities.
        is_finite = np.isfinite(logits).all(axis=-1, keepdims=True)
        return np.where(is_finite, logits, np.float32(np.nan))

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        if views == ONE:
            logits = logits_of(pixels)
        else:
            averaged = average_views(
                lambda view: jnp.asarray(logits_of(view)),
                jnp.asarray(pixels),
                views=views,
                is_multi_label=facts.is_multi_label,
            )
            logits = np.asarray(averaged)
        if facts.is_multi_label:
            # 1 / (1 + exp(-x)), of which exp would overflow.
            return np.exp(-np.logaddexp(np.float32(0), -logits))
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

    return probabilities


def eval_transform(
    preprocessing: Preprocessing, *, max_image_pixels: int = MAX_PIXELS
) -> EvalTransform:
    """Return the host side of a model's preprocessing: decode, resize, crop.

    Args:
      preprocessing: of the model.
      max_image_pixels: an image file of more is broken.

    Raises:
      ValueError: neither one channel nor three, since image files hold no others; or no pixels.
    """
    return EvalTransform(
        image_size=preprocessing.image_size,
        channels=len(preprocessing.mean),
        crop_pct=preprocessing.crop_pct,
        interpolation=preprocessing.interpolation,
        crop_mode=preprocessing.crop_mode,
        max_pixels=max_image_pixels,
    )


def class_names_of(facts: ModelFacts) -> tuple[str, ...]:
    """Return the names of a model's classes, and numbers where it has none."""
    return facts.class_names or tuple(f"class {n}" for n in range(facts.config.num_classes))


def class_colours_of(facts: ModelFacts) -> tuple[Colour, ...] | None:
    """Return red, green and blue of a model's classes; None where it names none."""
    stated = facts.class_colors
    return None if stated is None else tuple((red, green, blue) for red, green, blue in stated)


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """Return the image files among files and, at any depth, in folders, sorted within each folder.

    Raises:
      FileNotFoundError: a place does not exist.
      ValueError: a folder holds no image.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.is_dir():
            if not place.exists():
                raise FileNotFoundError(f"There is no image or folder {place}.")
            found.append(place)
            continue
        # As training lists them: hidden ones are not seen, and links are followed.
        (inside,) = FolderTree(place, IMAGE_SUFFIXES).files_of("", [""])
        if not inside:
            raise ValueError(f"{place} holds no image.")
        found += [place / name for name in inside]
    return found


def _decode(
    image: str, transform: EvalTransform
) -> UInt8[np.ndarray, "*views size size channels"] | str:
    try:
        return transform(read_plain_file(image))
    except BrokenImage as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _best(scores: np.ndarray, names: Sequence[str], top: int) -> list[ClassScore]:
    order = np.argsort(-scores, kind="stable")[:top].tolist()
    return [ClassScore(label, names[label], float(scores[label])) for label in order]
