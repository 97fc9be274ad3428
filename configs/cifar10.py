"""A small VAN-LSKA on CIFAR-10, from scratch, sized for an hour on two CPU cores.

    python train.py --config configs/cifar10.py --config.data.source=folder:cifar10.tar

The source is a folder or an uncompressed tar with train/CLASS/*.jpg and test/CLASS/*.jpg, or
``tfds:cifar10``. Hardware: two CPU cores; a GPU or TPU trains more epochs in less time.
Result: 84.43 % top-1 on the test split after 66 minutes (docs/results.md).
"""

from ml_collections import ConfigDict

from lska_jax.training.van_recipe import imagenet_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is k, "trivial", or both, as in ``configs/cifar10.py:35``."""
    config = imagenet_config("lska", "tiny", argument)
    config.model.num_classes = 10
    config.model.dims = (32, 64, 128)
    config.model.depths = (1, 2, 4)
    config.model.ffn_ratios = (4, 4, 4)
    config.model.stem_stride = 2
    config.model.drop_path_rate = 0.0

    config.data.source = "tfds:cifar10"
    config.data.eval_split = "test"
    config.data.image_size = 32
    config.data.mean = (0.491, 0.482, 0.447)
    config.data.std = (0.247, 0.243, 0.262)
    config.data.crop_pct = 1.0
    config.data.crop = "padded"
    config.data.pad = 4
    config.data.rand_augment = ""
    config.data.erase_prob = 0.0
    config.data.mixup_alpha = 0.0
    config.data.cutmix_alpha = 0.0

    config.optimizer.learning_rate = 2e-3
    config.optimizer.epochs = 20
    config.optimizer.warmup_epochs = 1
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"

    config.training.batch_size = 128
    config.training.eval_batch_size = 500
    config.training.ema_decay = 0.999
    config.training.log_every_steps = 50
    return config
