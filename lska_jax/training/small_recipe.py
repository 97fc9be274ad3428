"""The recipes for small networks on small images, as the configs for CIFAR-10 and digits begin."""

from ml_collections import ConfigDict


def use_cifar10(config: ConfigDict) -> None:
    """Set everything but the model for CIFAR-10: padded crops and flips, 20 epochs.

    Args:
      config: a run's; changed in place. ``config.data.source`` becomes ``tfds:cifar10``.
    """
    config.model.num_classes = 10
    config.model.drop_path_rate = 0.0

    config.data.source = "tfds:cifar10"
    config.data.eval_split = "test"
    config.data.image_size = 32
    config.data.mean = (0.491, 0.482, 0.447)
    config.data.std = (0.247, 0.243, 0.262)
    config.data.pad = 4
    _use_plain_crops(config)

    config.optimizer.learning_rate = 2e-3
    config.optimizer.epochs = 20
    config.optimizer.warmup_epochs = 1
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"

    config.training.batch_size = 128
    config.training.eval_batch_size = 500
    config.training.ema_decay = 0.999
    config.training.log_every_steps = 50


def use_digits(config: ConfigDict) -> None:
    """Set everything but the model for scikit-learn's digits, 8 x 8 pixels: 40 epochs, no flips.

    Args:
      config: a run's; changed in place.
    """
    config.model.num_classes = 10
    config.model.in_channels = 1
    config.model.drop_path_rate = 0.0

    config.data.source = "digits"
    config.data.eval_split = "test"
    config.data.image_size = 8
    config.data.mean = (0.3,)
    config.data.std = (0.38,)
    config.data.pad = 1
    config.data.hflip_prob = 0.0
    _use_plain_crops(config)

    config.optimizer.learning_rate = 4e-3
    config.optimizer.epochs = 40
    config.optimizer.warmup_epochs = 3
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"

    config.training.batch_size = 64
    config.training.eval_batch_size = 128
    config.training.eval_every_epochs = 5
    config.training.ema_decay = 0.99
    config.training.log_every_steps = 20


def _use_plain_crops(config: ConfigDict) -> None:
    config.data.crop_pct = 1.0
    config.data.crop = "padded"
    config.data.rand_augment = ""
    config.data.erase_prob = 0.0
    config.data.mixup_alpha = 0.0
    config.data.cutmix_alpha = 0.0
