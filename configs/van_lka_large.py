"""VAN-large with LKA on ImageNet-1K (arXiv 2202.09741).

    python train.py --config configs/van_lka_large.py            # k = 23
    python train.py --config configs/van_lka_large.py:35         # another k
    python train.py --config configs/van_lka_large.py:23,trivial # one undilated kernel

Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``.
Hardware: any number of TPU or GPU devices that the batch divides over. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.van_recipe import imagenet_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is k, "trivial", or both."""
    config = imagenet_config("lka", "large", argument)
    config.model.drop_path_rate = 0.2
    config.training.batch_size = 1024
    return config
