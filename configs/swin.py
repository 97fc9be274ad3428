"""Swin Transformers on ImageNet-1K, the recipe of their paper (arXiv 2103.14030, section 4.1).

    python train.py --config configs/swin.py                               # the tiny one
    python train.py --config configs/swin.py:swin_base_patch4_window7_224  # another size

Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``.
Hardware: any number of TPU or GPU devices that the batch divides over;
``--config.training.gradient_accumulation=4`` fits it into less memory. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.named_recipe import named_config

DROP_PATH_RATES = {
    "swin_tiny_patch4_window7_224": 0.2,
    "swin_small_patch4_window7_224": 0.3,
    "swin_base_patch4_window7_224": 0.5,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a Swin, the tiny one by default.

    Raises:
      ValueError: another argument.
    """
    config = named_config(argument, DROP_PATH_RATES)
    config.data.crop_pct = 0.875  # the authors evaluate from a short side of 256, timm at 0.9

    config.optimizer.learning_rate = 1e-3
    config.optimizer.min_learning_rate = 1e-5
    config.optimizer.warmup_learning_rate = 1e-6
    config.optimizer.warmup_epochs = 20
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"
    config.optimizer.clip_norm = 5.0

    config.training.batch_size = 1024
    return config
