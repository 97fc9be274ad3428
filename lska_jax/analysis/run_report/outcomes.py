"""What the best step of a run says of every evaluation image, and batches as it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from lska_jax.analysis.photos import load_model
from lska_jax.data.sources import Source
from lska_jax.tasks.classification import Classification
from lska_jax.training import run as building
from lska_jax.training.recorded_config import config_of_run

# How many of the images that are most confidently wrong are kept.
KEPT_MISTAKES = 24
KEPT_ROWS = 24


class Mistake(NamedTuple):
    """An image that the model is confidently wrong about.

    Attributes:
      image: (H, W, C), pixels in [0, 1] as the network sees them.
      place: what a person can look for.
      label: the class that it has.
      predicted: the class that the model names.
      probability: of ``predicted``.
      of_label: probability of ``label``.
    """

    image: Float[np.ndarray, "height width channels"]
    place: str
    label: int
    predicted: int
    probability: float
    of_label: float


class Outcomes(NamedTuple):
    """What a model says of a whole split.

    Attributes:
      split: name of what was evaluated.
      class_names: in label order.
      confusion: (classes, classes) counts, rows by the true class, columns by the predicted one.
      mistakes: the most confident ones, that first which is most sure.
      step: of the run.
    """

    split: str
    class_names: tuple[str, ...]
    confusion: Int[np.ndarray, "classes classes"]
    mistakes: list[Mistake]
    step: int


class TrainingBatch(NamedTuple):
    """Rows of a training batch after all augmentation.

    Attributes:
      images: (B, H, W, C), pixels in [0, 1]; erased places hold noise beyond that, which is cut.
      targets: (B, classes), what the loss compares with; rows sum to one.
      step: that saw it.
    """

    images: Float[np.ndarray, "batch height width channels"]
    targets: Float[np.ndarray, "batch classes"]
    step: int


def is_classification(config: ConfigDict) -> bool:
    """Tell whether a run's task has one class an image, and so a confusion matrix."""
    task = building.build_task(config)
    return isinstance(task, Classification) and not task.is_multi_label


def find_outcomes(
    folder: str | Path, *, report: Callable[[str], None] = lambda _: None
) -> Outcomes:
    """Evaluate the best step of a run on the config's evaluation split, image by image.

    Args:
      folder: of the run.
      report: receives what is going on.

    Raises:
      FileNotFoundError: there is no checkpoint, or no data.
      ValueError: the run's data is not what it was.
    """
    from lska_jax.training.model_places import read_weights

    config = config_of_run(folder)
    task = building.build_task(config)
    weights = read_weights(folder)
    source = task.open_split(source=config.data.source, split=config.data.eval_split)
    if weights.class_names is not None:
        source = task.in_class_order(source, weights.class_names, whose=weights.place)
    names = weights.class_names or cast(Source, source).class_names
    loaded = load_model(folder, report=report)
    graph, state = nnx.split(loaded.network)

    @jax.jit
    def probabilities(state: nnx.State, images: jax.Array) -> jax.Array:
        return jax.nn.softmax(nnx.merge(graph, state)(images), axis=-1)

    classes = config.model.num_classes
    confusion = np.zeros((classes, classes), np.int64)
    mistakes: list[Mistake] = []
    report(f"{Path(folder).name}: evaluating {source.name} image by image ...")
    for batch in task.eval_batches(
        source, global_batch_size=min(config.training.eval_batch_size, len(source))
    ):
        images = loaded.normalise(batch["image"])
        scores = np.asarray(probabilities(state, images))
        labels, predicted = batch["label"], np.argmax(scores, axis=-1)
        usable = batch["mask"]
        np.add.at(confusion, (labels[usable], predicted[usable]), 1)
        wrong = np.flatnonzero(usable & (labels != predicted))
        for row in wrong.tolist():
            mistakes.append(
                Mistake(
                    batch["image"][row].astype(np.float64) / 255,
                    source.path(int(batch["index"][row])),
                    int(labels[row]),
                    int(predicted[row]),
                    float(scores[row, predicted[row]]),
                    float(scores[row, labels[row]]),
                )
            )
        # No more images in memory than are shown.
        mistakes.sort(key=lambda mistake: -mistake.probability)
        del mistakes[KEPT_MISTAKES:]
    return Outcomes(source.name, tuple(names), confusion, mistakes, weights.step)


def see_batch(
    folder: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    step: int = 0,
    rows: int = KEPT_ROWS,
) -> TrainingBatch:
    """Return the first rows of the batch that a step of a run was trained on, as it saw them.

    Order, crops, RandAugment, erasing and mixing are functions of the run's seed and the step:
    these are the images themselves, not others like them.

    Args:
      folder: of the run.
      class_names: in the order of the model's outputs; None takes the data's.
      step: counted from 0.
      rows: how many are returned; the whole batch is made, since mixing takes partners from it.

    Raises:
      FileNotFoundError: there is no checkpoint, or no data.
      ValueError: the run's data is not what it was.
    """
    config = config_of_run(folder)
    task = building.build_task(config)
    source = task.open_split(source=config.data.source, split=config.data.train_split)
    if class_names is not None:
        source = task.in_class_order(source, class_names, whose=str(folder))
    batches = task.train_batches(
        source,
        global_batch_size=config.training.batch_size,
        seed=config.training.seed,
        start_step=step,
        stop_step=step + 1,
    )
    batch = next(batches)
    batches.close()
    key = jax.random.fold_in(jax.random.key(config.training.seed), step)
    fields = {name: array for name, array in batch.items() if name != "index"}
    (images, targets, _), _ = jax.jit(task.prepare)(fields, key)
    mean, std = (np.asarray(config.data[name], np.float64) for name in ("mean", "std"))
    pixels = np.asarray(images[:rows], np.float64) * std + mean
    return TrainingBatch(np.clip(pixels, 0, 1), np.asarray(targets[:rows]), step)
