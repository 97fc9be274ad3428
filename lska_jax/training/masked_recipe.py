"""The recipe of a start without labels: SimMIM (arXiv 2111.09886, sections 3 and 4)."""

from typing import Any

from ml_collections import ConfigDict

from lska_jax.tasks.masked_images import predicted_values
from lska_jax.tasks.masked_images_check import masked_images_section, turn_labels_off
from lska_jax.tasks.table import MASKED_IMAGES
from lska_jax.training.config import base_config, model_section

# Images up to this size are moved by some pixels, not cropped.
_SMALL_IMAGE = 64


def masked_images_config(model: str, **fields: Any) -> ConfigDict:
    """Return ``base_config`` for a named model whose masked patches are painted.

    Args:
      model: one of ``list_models()``.
      **fields: of its family, that replace the defaults.
    """
    config = base_config()
    config.model = model_section(model, **fields)
    config.optimizer.epochs = 100
    config.optimizer.warmup_epochs = 10
    config.optimizer.cooldown_epochs = 0
    use_masked_images(config)
    return config


def use_masked_images(config: ConfigDict, **fields: Any) -> None:
    """Turn a config for classification into one whose masked patches are painted.

    Args:
      config: a run's, its network and image size settled; changed in place.
      **fields: of ``config.masked_images``, that replace the defaults.
    """
    with config.unlocked():
        config.task = MASKED_IMAGES
        config.masked_images = masked_images_section(**fields)
    turn_labels_off(config)
    data = config.data
    # Colours are what is painted; the paper crops and mirrors, and nothing else.
    data.rand_augment = ""
    if data.image_size > _SMALL_IMAGE:
        data.crop, data.pad, data.crop_scale = "random_resized", 0, (0.67, 1.0)
    config.model.drop_path_rate = 0.0
    values = predicted_values(config.model.to_dict(), image_size=data.image_size)
    config.model.num_classes = values
