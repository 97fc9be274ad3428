"""InceptionNeXt on ImageNet-1K, the authors' recipe (arXiv 2303.16900 and its code).

    python train.py --config configs/inception_next.py                       # inception_next_tiny
    python train.py --config configs/inception_next.py:inception_next_small  # another model

Their recipe for atto has a learning rate of 1e-3 and 5 epochs of warm-up; at which batch could not
be found, and 1024 stands here.
Needs ImageNet as ArrayRecord: ``lska-jax prepare imagenet2012 --manual_dir DIR``.
Hardware: any number of TPU or GPU devices that the batch divides over;
``--config.training.gradient_accumulation=8`` fits it into less memory. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.named_recipe import named_config

DROP_PATH_RATES = {
    "inception_next_atto": 0.1,
    "inception_next_tiny": 0.1,
    "inception_next_small": 0.3,
    "inception_next_base": 0.4,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of an InceptionNeXt, tiny by default.

    Raises:
      ValueError: another argument.
    """
    config = named_config(argument or "inception_next_tiny", DROP_PATH_RATES)

    is_atto = config.model.name == "inception_next_atto"
    config.optimizer.learning_rate = 1e-3 if is_atto else 4e-3
    config.optimizer.warmup_epochs = 5 if is_atto else 20
    config.training.batch_size = 1024 if is_atto else 4096
    return config
