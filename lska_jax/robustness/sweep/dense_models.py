"""A segmentor or detector as the sweep sees it: a task that judges it, and who it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from lska_jax.models.heads import head_config, head_entry, head_of
from lska_jax.models.table import Preprocessing
from lska_jax.nn.functional import ModelFunctions, batch_stats, parameters
from lska_jax.robustness.cells import ModelStamp
from lska_jax.robustness.sweep.classifier import hash_arrays
from lska_jax.tasks.predict import class_names_of
from lska_jax.tasks.predict_objects import canvases
from lska_jax.tasks.table import task_entry
from lska_jax.training.dense_recipe import dense_config
from lska_jax.training.model_places import is_run, local_path, model_name, read_model
from lska_jax.training.recorded_config import config_of_run
from lska_jax.weights.model_folder import is_model_folder, read_facts
from lska_jax.weights.pretrained import build_from_arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseModel:
    """A segmentor or detector to be measured.

    Attributes:
      stamp: its name, hash and preprocessing, as they stand beside every number.
      functions: the network.
      params: its parameters by path.
      stats: its statistics by path.
      head: name of its head.
      preprocessing: of the images.
      class_names: in label order.
      task_name: "segmentation" or "detection".
    """

    stamp: ModelStamp
    functions: ModelFunctions
    params: Mapping[str, Any]
    stats: Mapping[str, Any]
    head: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    task_name: str

    def build_task(self, sizes: np.ndarray) -> Any:
        """Return the task that reads and judges a set; without jax's training parts.

        Args:
          sizes: (number of images, 2) heights and widths of the set.
        """
        prepared = self.preprocessing
        config = dense_config("van_lska_tiny", self.head, num_classes=len(self.class_names))
        data = config.data
        data.mean, data.std = prepared.mean, prepared.std
        data.image_size, data.long_side = prepared.image_size, prepared.long_side
        wide, _ = canvases(prepared)
        if self.task_name == "detection":
            config.detection.canvas = wide
        else:
            config.segmentation.eval_canvas = wide
            config.segmentation.label_canvas = (
                int(sizes.min(1).max(initial=1)),
                int(sizes.max(1).max(initial=1)),
            )
        return task_entry(config).build(config)


def task_of_model(place: str | Path) -> str:
    """Return what a model is for, "classification" unless it has a head; no weights are read.

    Args:
      place: as for ``load_dense``; what is neither a run nor a model folder on the disk is taken
        for a classifier.
    """
    path = local_path(place)
    head: Any = None
    if path is not None and path.is_dir() and is_model_folder(path):
        head = head_of(read_facts(path).config)
    elif path is not None and path.is_dir() and is_run(path):
        try:
            model: ConfigDict = config_of_run(path).model
        except ValueError:
            return "classification"
        if model.get("head"):
            head = head_of(_Holder(head_config(model.head.to_dict())))
    return head.task if head else "classification"


def load_dense(
    place: str | Path, *, name: str | None = None, report: Callable[[str], None] = print
) -> DenseModel:
    """Load a segmentor or detector.

    Args:
      place: a model folder, or a run, of which the best step is taken.
      name: how to call it; None takes the last part of ``place``.
      report: receives remarks, one line each.

    Raises:
      FileNotFoundError: there is no model.
      ValueError: it is damaged, or has no head.
    """
    facts, arrays = read_model(place, report=report)
    head = head_of(facts.config)
    if head is None:
        raise ValueError(f"{place} is neither a segmentor nor a detector: {facts.description}.")
    model = build_from_arrays(facts.config, arrays, rngs=nnx.Rngs(0))
    prepared = facts.preprocessing
    shown = (
        f"whole image within {prepared.image_size} and {prepared.long_side}, bilinear, "
        f"mean {prepared.mean}, std {prepared.std}"
    )
    params = parameters(model)
    kernel_size = {"k": facts.config.k} if hasattr(facts.config, "k") else {}
    num_parameters = sum(int(array.size) for array in params.values())
    return DenseModel(
        stamp=ModelStamp(
            name=name or model_name(place),
            sha256=hash_arrays(arrays),
            preprocessing=shown,
            facts={**kernel_size, "head": head.title, "parameters": num_parameters},
        ),
        functions=ModelFunctions(model),
        params=params,
        stats=batch_stats(model),
        head=head.name,
        preprocessing=prepared,
        class_names=class_names_of(facts),
        task_name=head_entry(head.name).task,
    )


@dataclasses.dataclass(frozen=True)
class _Holder:
    """What ``head_of`` looks into."""

    head: Any
