"""Semantic FPN or UPerNet on a small VAN-LSKA, on drawn scenes of digits, 96 x 96 pixels.

    python train.py --config configs/digits_segmentation.py
    python train.py --config configs/digits_segmentation.py:upernet

Hardware: any laptop. Result: 86.30 % mIoU in 254 s on two CPU cores, compile included
(docs/results.md).
"""

from ml_collections import ConfigDict

from lska_jax.training.dense_recipe import dense_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a head, semantic_fpn by default."""
    config = dense_config("van_lska_tiny", argument or "semantic_fpn", num_classes=11, k=23)
    config.model.dims = (16, 48, 96, 128)
    config.model.depths = (1, 1, 2, 1)
    config.model.ffn_ratios = (2, 2, 2, 2)
    # Half of the wrong pixels of a network that sees every fourth lie within two of an edge.
    config.model.stem_stride = 2
    for name in config.model.head:
        if name.endswith("channels"):
            config.model.head[name] = 24
    config.model.head.dropout_rate = 0.0

    side = 96
    config.data.source = f"digit_scenes:{side}x{side}:2880"
    config.data.eval_split = "test"
    config.data.image_size = side
    config.data.long_side = side
    config.data.hflip_prob = 0.0  # a mirrored digit is none
    config.segmentation.crop_size = (side, side)
    config.segmentation.jitter = (1.0, 1.0)
    config.segmentation.photometric = False
    config.segmentation.eval_canvas = (side, side)
    config.segmentation.label_canvas = (side, side)

    # Four pixels of five show no digit.
    config.training.class_weights = ",".join(["0.5", *["1"] * 10])
    config.segmentation.adjust_logits = True

    # Small batches: in minutes on two cores the number of steps counts.
    config.optimizer.learning_rate = 0.02
    config.optimizer.muon_learning_rate = 0.04
    config.optimizer.beta2 = 0.99  # gradients fall to a fifth within these steps
    config.optimizer.epochs = 4
    config.optimizer.warmup_epochs = 0
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule = "poly"  # of power 1, a straight line

    config.training.batch_size = 8
    config.training.eval_batch_size = 32
    config.training.eval_every_epochs = 4
    # The rate falls to nothing in a straight line, after which an average lags behind.
    config.training.ema_decay = 0.0
    config.training.log_every_steps = 50
    return config
