"""Where recipes of segmentors and detectors begin: what is classification's turned off."""

from typing import Any

from ml_collections import ConfigDict

from lska_jax.models.heads import head_entry
from lska_jax.tasks.detection_check import detection_section
from lska_jax.tasks.segmentation_check import segmentation_section
from lska_jax.training.config import base_config, model_section


def dense_config(model: str, head: str, **fields: Any) -> ConfigDict:
    """Return ``base_config`` for a model with a head: its task and preprocessing.

    Args:
      model: name of the backbone.
      head: name of the head.
      **fields: of the model.
    """
    entry = head_entry(head)
    config = base_config()
    config.task = entry.task
    config.model = model_section(model, head=head, **fields)
    data, prepared = config.data, entry.preprocessing
    data.mean, data.std = prepared.mean, prepared.std
    data.image_size, data.long_side = prepared.image_size, prepared.long_side
    data.crop_mode, data.interpolation = prepared.crop_mode, prepared.interpolation
    data.train_interpolation = prepared.interpolation
    data.crop, data.crop_pct = "none", 1.0
    data.rand_augment = ""
    data.erase_prob = data.mixup_alpha = data.cutmix_alpha = 0.0
    config.training.label_smoothing = 0.0
    if entry.task == "segmentation":
        config.segmentation = segmentation_section()
    else:
        config.detection = detection_section()
    return config
