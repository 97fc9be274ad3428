"""PVT v2 on ImageNet-1K, the authors' recipe (arXiv 2106.13797 and its code).

    python train.py --config configs/pvt_v2.py            # pvt_v2_b0
    python train.py --config configs/pvt_v2.py:pvt_v2_b2  # another model

It is DeiT's, with which the authors' code also repeats every image three times in an epoch: that is
left out here. They evaluate at a short side of 256 pixels, where timm states a crop of 0.9 for the
same weights.
Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``.
Hardware: any number of TPU or GPU devices that the batch divides over. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.named_recipe import named_config

# Stochastic depth of each model; those of 0.3 have their gradients clipped.
DROP_PATH_RATES = {
    "pvt_v2_b0": 0.1,
    "pvt_v2_b1": 0.1,
    "pvt_v2_b2": 0.1,
    "pvt_v2_b2_li": 0.1,
    "pvt_v2_b3": 0.3,
    "pvt_v2_b4": 0.3,
    "pvt_v2_b5": 0.3,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a PVT v2, pvt_v2_b0 by default.

    Raises:
      ValueError: another argument.
    """
    config = named_config(argument, DROP_PATH_RATES)
    config.data.crop_pct = 0.875

    config.training.batch_size = 1024
    config.optimizer.learning_rate = 5e-4 * config.training.batch_size / 512
    config.optimizer.min_learning_rate = 1e-5
    config.optimizer.clip_norm = 1.0 if config.model.drop_path_rate == 0.3 else 0.0
    return config
