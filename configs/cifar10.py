"""A small VAN-LSKA on CIFAR-10, from scratch, sized for two hours on two CPU cores.

    python train.py --config configs/cifar10.py --config.data.source=folder:cifar10.tar

The source is a folder or an uncompressed tar with train/CLASS/*.jpg and test/CLASS/*.jpg, or
``tfds:cifar10``. Hardware: two CPU cores; a GPU or TPU trains more epochs in less time.
Result: 87.07 % top-1 on the test split after 112 minutes (docs/results.md).
"""

from ml_collections import ConfigDict

from lska_jax.training.small_recipe import use_cifar10
from lska_jax.training.van_recipe import imagenet_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is k, "trivial", or both, as in ``configs/cifar10.py:35``."""
    config = imagenet_config("lska", "tiny", argument)
    use_cifar10(config)
    config.model.dims = (64, 128, 176)
    config.model.depths = (2, 3, 2)
    config.model.ffn_ratios = (4, 4, 2)
    config.model.stem_stride = 2
    config.optimizer.learning_rate = 4e-3
    config.training.eval_every_epochs = 2
    return config
