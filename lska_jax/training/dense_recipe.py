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


def ade20k_config(model: str, head: str, **fields: Any) -> ConfigDict:
    """Return what recipes on ADE20K share: the data, and a rate that falls to zero by steps.

    Args:
      model: name of the backbone.
      head: name of the head.
      **fields: of the model.
    """
    config = dense_config(model, head, **fields)
    config.data.source = "ade20k:ADEChallengeData2016"
    config.data.train_split = "training"
    config.data.eval_split = "validation"
    config.optimizer.schedule = "poly"
    config.optimizer.min_learning_rate = config.optimizer.warmup_learning_rate = 0.0
    config.training.eval_batch_size = 16
    config.training.eval_every_epochs = 8
    config.training.checkpoint_every_steps = 2_000
    return config


def coco_config(model: str, head: str, **fields: Any) -> ConfigDict:
    """Return the recipe of detectors on COCO, which mmdetection calls 1x.

    AdamW at 1e-4 with a decay of .05 on everything, 12 epochs of 16 images a step, a tenth of the
    rate after epochs 8 and 11, a warm-up of 1,000 steps, drop path .1, flips.

    Args:
      model: name of the backbone.
      head: name of the head.
      **fields: of the model.
    """
    config = dense_config(model, head, **{"drop_path_rate": 0.1, **fields})
    config.data.source = "coco:coco"
    config.data.train_split, config.data.eval_split = "train2017", "val2017"
    optimizer = config.optimizer
    optimizer.learning_rate, optimizer.weight_decay, optimizer.decay = 1e-4, 0.05, "all"
    optimizer.schedule, optimizer.drop_epochs = "drops", (8, 11)
    optimizer.epochs, optimizer.warmup_epochs, optimizer.cooldown_epochs = 12, 0, 0
    optimizer.warmup_steps, optimizer.warmup_learning_rate = 1_000, 1e-7
    optimizer.min_learning_rate = 0.0
    config.training.batch_size = config.training.eval_batch_size = 16
    config.training.checkpoint_every_steps = 2_000
    return config
