"""UniRepLKNet on ImageNet-1K, the authors' recipe (arXiv 2311.15599).

    python train.py --config configs/unireplknet.py                  # unireplknet_a
    python train.py --config configs/unireplknet.py:unireplknet_t    # another model

Not known of the recipe, and left at this trainer's defaults: the least learning rate, and an
averaged model. The cosine ends with the last epoch.

Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``.
Hardware: any number of TPU or GPU devices that the batch divides over. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.config import base_config, model_section

# Drop path; alpha of Mixup and of CutMix.
_BY_MODEL = {
    "unireplknet_a": (0.0, 0.3, 0.3),
    "unireplknet_f": (0.0, 0.3, 0.3),
    "unireplknet_p": (0.1, 0.3, 0.3),
    "unireplknet_n": (0.1, 0.5, 0.5),
    "unireplknet_t": (0.2, 0.8, 1.0),
    "unireplknet_s": (0.4, 0.8, 1.0),
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a model, unireplknet_a by default.

    Raises:
      ValueError: no model of the family has this name.
    """
    name = argument or "unireplknet_a"
    if name not in _BY_MODEL:
        raise ValueError(
            f"Config argument {argument!r} is no model of this recipe; allowed: "
            f"{', '.join(_BY_MODEL)}."
        )
    drop_path_rate, mixup_alpha, cutmix_alpha = _BY_MODEL[name]
    config = base_config()
    config.model = model_section(name, drop_path_rate=drop_path_rate)

    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.crop_pct = 224 / 256
    config.data.train_interpolation = "bicubic"
    config.data.mixup_alpha = mixup_alpha
    config.data.cutmix_alpha = cutmix_alpha

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup_epochs = 20
    config.optimizer.cooldown_epochs = 0
    config.training.batch_size = 4096
    return config
