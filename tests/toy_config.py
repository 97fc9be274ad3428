"""The digits recipe with the toy family: a config file as a user of another family writes it."""

import runpy
from pathlib import Path

import toy_family
from ml_collections import ConfigDict

from lska_jax.training.config import model_section

DIGITS = Path(__file__).parents[1] / "configs" / "digits.py"


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a model of the family."""
    assert toy_family.FAMILY
    config = runpy.run_path(str(DIGITS))["get_config"]()
    config.model = model_section(argument or "toy_small", num_classes=10, in_channels=1)
    config.data.num_workers = 0
    config.optimizer.epochs = 4
    config.optimizer.warmup_epochs = 1
    config.optimizer.learning_rate = 5e-2
    config.training.batch_size = 48
    config.training.ema_decay = 0.0
    config.training.eval_batch_size = 360
    config.training.eval_every_epochs = 2
    return config
