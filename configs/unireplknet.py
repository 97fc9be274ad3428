"""UniRepLKNet on ImageNet-1K, the authors' recipe (arXiv 2311.15599).

    python train.py --config configs/unireplknet.py                  # unireplknet_a
    python train.py --config configs/unireplknet.py:unireplknet_t    # another model

Not known of the recipe, and left at this trainer's defaults: the least learning rate, and an
averaged model. The cosine ends with the last epoch.

Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``.
Hardware: any number of TPU or GPU devices that the batch divides over. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.named_recipe import named_config

# Drop path; the alphas of Mixup and of CutMix.
_BY_MODEL = {
    "unireplknet_a": (0.0, (0.3, 0.3)),
    "unireplknet_f": (0.0, (0.3, 0.3)),
    "unireplknet_p": (0.1, (0.3, 0.3)),
    "unireplknet_n": (0.1, (0.5, 0.5)),
    "unireplknet_t": (0.2, (0.8, 1.0)),
    "unireplknet_s": (0.4, (0.8, 1.0)),
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a model, unireplknet_a by default.

    Raises:
      ValueError: no model of the family has this name.
    """
    config = named_config(argument, {name: rate for name, (rate, _) in _BY_MODEL.items()})
    mixup_alpha, cutmix_alpha = _BY_MODEL[config.model.name][1]
    config.data.mixup_alpha = mixup_alpha
    config.data.cutmix_alpha = cutmix_alpha

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_epochs = 20
    config.optimizer.cooldown_epochs = 0
    config.training.batch_size = 4096
    return config
