"""Where the recipes of published families begin: the paper's config for a model of theirs."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from lska_jax.models.table import model_entry
from lska_jax.training.config import base_config, model_section


def named_config(argument: str, drop_path_rates: Mapping[str, float]) -> ConfigDict:
    """Return ``base_config`` with a model, its preprocessing and bicubic training images.

    Args:
      argument: of the config file: the name of a model; "" is the first.
      drop_path_rates: {model: stochastic depth of its last block}.

    Raises:
      ValueError: the argument is none of the models.
    """
    name = argument or next(iter(drop_path_rates))
    if name not in drop_path_rates:
        raise ValueError(
            f"Config argument {argument!r} is not understood; allowed: "
            f"{', '.join(drop_path_rates)}."
        )
    config = base_config()
    config.model = model_section(name, drop_path_rate=drop_path_rates[name])

    prepared = model_entry(name).preprocessing
    config.data.mean = prepared.mean
    config.data.std = prepared.std
    config.data.crop_pct = prepared.crop_pct
    config.data.train_interpolation = "bicubic"
    return config
