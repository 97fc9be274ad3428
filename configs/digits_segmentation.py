"""Semantic FPN on a small VAN-LSKA, on drawn scenes of digits, 128 x 128 pixels.

    python train.py --config configs/digits_segmentation.py

Hardware: any laptop. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.dense_recipe import dense_config
from lska_jax.training.van_recipe import parse_argument


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is k, "trivial", or both, as in ``configs/digits.py:11``."""
    parsed = parse_argument(argument or "11")
    form = "lska_trivial" if parsed["is_trivial"] else "lska"
    config = dense_config(f"van_{form}_tiny", "semantic_fpn", num_classes=11, k=parsed["k"])
    config.model.dims = (32, 64, 128, 160)
    config.model.depths = (1, 1, 2, 1)
    config.model.ffn_ratios = (4, 4, 4, 4)
    config.model.head.pyramid_channels = 32
    config.model.head.channels = 32
    config.model.head.dropout_rate = 0.0

    config.data.source = "digit_scenes"
    config.data.eval_split = "test"
    config.data.image_size = 128
    config.data.long_side = 128
    config.data.hflip_prob = 0.0  # a mirrored digit is none
    config.segmentation.crop_size = (128, 128)
    config.segmentation.jitter = (1.0, 1.0)
    config.segmentation.photometric = False
    config.segmentation.eval_canvas = (128, 128)
    config.segmentation.label_canvas = (128, 128)

    config.optimizer.learning_rate = 4e-3
    config.optimizer.epochs = 14
    config.optimizer.warmup_epochs = 1
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"

    config.training.batch_size = 16
    config.training.eval_batch_size = 32
    config.training.eval_every_epochs = 7
    config.training.ema_decay = 0.99
    config.training.log_every_steps = 20
    return config
