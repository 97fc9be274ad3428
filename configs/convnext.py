"""ConvNeXt on ImageNet-1K, the recipe of its paper (arXiv 2201.03545, table 5).

    python train.py --config configs/convnext.py                # convnext_tiny
    python train.py --config configs/convnext.py:convnext_base  # another model

Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``. The published
weights are the moving average's, which ``publish`` takes too.
Hardware: any number of TPU or GPU devices that the batch divides over;
``--config.training.gradient_accumulation=8`` fits it into less memory. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.named_recipe import named_config

DROP_PATH_RATES = {
    "convnext_tiny": 0.1,
    "convnext_small": 0.4,
    "convnext_base": 0.5,
    "convnext_large": 0.5,
    "convnext_xlarge": 0.5,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a ConvNeXt, convnext_tiny by default.

    Raises:
      ValueError: another argument.
    """
    config = named_config(argument, DROP_PATH_RATES)

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_learning_rate = 0.0
    config.optimizer.warmup_epochs = 20
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"

    config.training.batch_size = 4096
    config.training.ema_decay = 0.9999
    return config
