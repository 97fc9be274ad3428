"""DeiT on ImageNet-1K, the recipe of its paper (arXiv 2012.12877, table 9).

    python train.py --config configs/deit.py                        # deit_tiny_patch16_224
    python train.py --config configs/deit.py:deit_small_patch16_224 # another size

Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``. Differences: each
image is seen once a step and not three times (repeated augmentation), and there is no teacher, so
the distilled models are not trained here.
Hardware: any number of TPU or GPU devices that the batch divides over. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.named_recipe import named_config

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a DeiT, deit_tiny_patch16_224 by default.

    Raises:
      ValueError: another argument.
    """
    config = named_config(argument, dict.fromkeys(MODELS, 0.1))
    config.data.crop_pct = 0.875  # DeiT's code evaluates from a short side of 256, timm at 0.9

    config.training.batch_size = 1024
    config.optimizer.learning_rate = 5e-4 * 1024 / 512
    config.optimizer.min_learning_rate = 1e-5
    return config
