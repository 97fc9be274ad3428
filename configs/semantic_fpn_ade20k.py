"""Semantic FPN on ADE20K, with VAN-LSKA or VAN-LKA tiny, small or base as backbone.

    python train.py --config configs/semantic_fpn_ade20k.py:van_lska_small \
        --config.data.source=ade20k:PATH --config.training.finetune_from=CLASSIFIER

PATH is ADEChallengeData2016, unpacked; CLASSIFIER a model folder of the same backbone. The recipes
are those of the papers' code: LSKA's (80,000 steps of four images a GPU, whose number is not
stated; 16 here, as many images in all as VAN's), and VAN's (40,000 steps of 32). BatchNorm takes
the whole batch, over all devices.

Hardware: a TPU slice or GPUs. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.dense_recipe import ade20k_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a model, van_lska_tiny by default."""
    name = argument or "van_lska_tiny"
    is_lska = "lska" in name
    config = ade20k_config(name, "semantic_fpn", drop_path_rate=0.1 if is_lska else 0.2)
    config.optimizer.learning_rate = 1e-4 if is_lska else 2e-4
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = "all"
    config.optimizer.power = 0.9
    config.optimizer.steps = 80_000 if is_lska else 40_000
    config.training.batch_size = 16 if is_lska else 32
    return config
