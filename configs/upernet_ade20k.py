"""UPerNet on ADE20K, with VAN-LSKA or VAN-LKA tiny, small or base as backbone.

    python train.py --config configs/upernet_ade20k.py:van_lska_small \
        --config.data.source=ade20k:PATH --config.training.finetune_from=CLASSIFIER

PATH is ADEChallengeData2016, unpacked; CLASSIFIER a model folder of the same backbone. The recipe
is that of VAN's code: 160,000 steps of 16 images, a warm-up of 1,500 steps, no decay of the
backbone's norms. Its published figures are of several scales and flips; evaluations here take one.

Hardware: a TPU slice or GPUs. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.dense_recipe import ade20k_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a model, van_lska_tiny by default."""
    name = argument or "van_lska_tiny"
    config = ade20k_config(name, "upernet", drop_path_rate=0.1)
    config.optimizer.learning_rate = 6e-5
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay = "not_backbone_norms"
    config.optimizer.steps = 160_000
    config.optimizer.warmup_steps = 1_500
    config.optimizer.warmup_learning_rate = 6e-11
    config.training.batch_size = 16
    return config
