"""A model that a task judges as the sweep sees it: that task, and who the model is.

Segmentors, detectors, and classifiers of any number of labels an image.
"""

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
from lska_jax.robustness.sweep.classifier import describe_transform, hash_arrays
from lska_jax.tasks.predict import class_names_of, eval_transform
from lska_jax.tasks.predict_objects import canvases
from lska_jax.tasks.table import task_entry
from lska_jax.training.config import base_config
from lska_jax.training.dense_recipe import dense_config
from lska_jax.training.model_places import is_run, local_path, model_name, read_model
from lska_jax.training.recorded_config import config_of_run
from lska_jax.weights.model_folder import is_model_folder, read_facts
from lska_jax.weights.pretrained import build_from_arrays

MULTI_LABEL = "multi_label"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseModel:
    """A segmentor, a detector or a classifier of any number of labels, to be measured.

    Attributes:
      stamp: its name, hash and preprocessing, as they stand beside every number.
      functions: the network.
      params: its parameters by path.
      stats: its statistics by path.
      head: name of its head; "" of a classifier.
      preprocessing: of the images.
      class_names: in label order.
      task_name: "segmentation", "detection" or "multi_label".
    """

    stamp: ModelStamp
    functions: ModelFunctions
    params: Mapping[str, Any]
    stats: Mapping[str, Any]
    head: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    task_name: str

    def build_task(self, sizes: np.ndarray | None) -> Any:
        """Return the task that reads and judges a set; without jax's training parts.

        Args:
          sizes: (number of images, 2) heights and widths of the set; None where its images have
            labels, which need none.
        """
        prepared = self.preprocessing
        if self.task_name == MULTI_LABEL:
            return task_entry(self._multi_label_config()).build(self._multi_label_config())
        config = dense_config("van_lska_tiny", self.head, num_classes=len(self.class_names))
        data = config.data
        data.mean, data.std = prepared.mean, prepared.std
        data.image_size, data.long_side = prepared.image_size, prepared.long_side
        wide, _ = canvases(prepared)
        if self.task_name == "detection":
            config.detection.canvas = wide
        elif sizes is not None:
            config.segmentation.eval_canvas = wide
            config.segmentation.label_canvas = (
                int(sizes.min(1).max(initial=1)),
                int(sizes.max(1).max(initial=1)),
            )
        return task_entry(config).build(config)

    def _multi_label_config(self) -> ConfigDict:
        config = base_config()
        config.model.num_classes = len(self.class_names)
        config.data.multi_label = True
        for name in ("mean", "std", "image_size", "crop_pct", "crop_mode", "interpolation"):
            config.data[name] = getattr(self.preprocessing, name)
        return config


def task_of_model(place: str | Path) -> str:
    """Return what a model is for; no weights are read.

    "classification" unless it has a head, or any number of labels an image ("multi_label").

    Args:
      place: as for ``load_dense``; what is neither a run nor a model folder on the disk is taken
        for a classifier.
    """
    path = local_path(place)
    head: Any = None
    if path is not None and path.is_dir() and is_model_folder(path):
        facts = read_facts(path)
        if facts.is_multi_label:
            return MULTI_LABEL
        head = head_of(facts.config)
    elif path is not None and path.is_dir() and is_run(path):
        try:
            config = config_of_run(path)
        except ValueError:
            return "classification"
        if config.data.get("multi_label", False):
            return MULTI_LABEL
        model: ConfigDict = config.model
        if model.get("head"):
            head = head_of(_Holder(head_config(model.head.to_dict())))
    return head.task if head else "classification"


def load_dense(
    place: str | Path, *, name: str | None = None, report: Callable[[str], None] = print
) -> DenseModel:
    """Load a segmentor, a detector, or a classifier of any number of labels an image.

    Args:
      place: a model folder, or a run, of which the best step is taken.
      name: how to call it; None takes the last part of ``place``.
      report: receives remarks, one line each.

    Raises:
      FileNotFoundError: there is no model.
      ValueError: it is damaged, has neither a head nor such labels, or takes no colours.
    """
    facts, arrays = read_model(place, report=report)
    head = head_of(facts.config)
    if head is None and not facts.is_multi_label:
        raise ValueError(f"{place} is neither a segmentor nor a detector: {facts.description}.")
    if facts.config.in_channels != 3:
        raise ValueError(
            f"{place} takes images of {facts.config.in_channels} channels; corruptions are of RGB. "
            "Only models with in_channels=3 can be measured."
        )
    model = build_from_arrays(facts.config, arrays, rngs=nnx.Rngs(0))
    prepared = facts.preprocessing
    if head is None:
        shown = describe_transform(eval_transform(prepared))
    else:
        shown = f"whole image within {prepared.image_size} and {prepared.long_side}, bilinear"
    shown += f", mean {prepared.mean}, std {prepared.std}"
    titled = {"head": head.title} if head else {}
    params = parameters(model)
    # Pictures against k need one.
    k = getattr(facts.config, "k", None)
    kernel_size = {"k": k} if isinstance(k, int) else {}
    num_parameters = sum(int(array.size) for array in params.values())
    return DenseModel(
        stamp=ModelStamp(
            name=name or model_name(place),
            sha256=hash_arrays(arrays),
            preprocessing=shown,
            facts={**kernel_size, **titled, "parameters": num_parameters},
        ),
        functions=ModelFunctions(model),
        params=params,
        stats=batch_stats(model),
        head=head.name if head else "",
        preprocessing=prepared,
        class_names=class_names_of(facts),
        task_name=head_entry(head.name).task if head else MULTI_LABEL,
    )


@dataclasses.dataclass(frozen=True)
class _Holder:
    """What ``head_of`` looks into."""

    head: Any
