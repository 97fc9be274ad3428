"""RetinaNet, or Mask R-CNN, on a small VAN-LSKA, on drawn scenes of digits, 128 x 128 pixels.

    python train.py --config configs/digits_detection.py
    python train.py --config configs/digits_detection.py:mask_rcnn

Hardware: any laptop.
Result: RetinaNet 74.8 % AP50:95 in 397 s, Mask R-CNN 77.7 % of boxes and 73.7 % of masks in 424 s,
on one CPU core each, compile included (docs/results.md).
"""

from ml_collections import ConfigDict

from lska_jax.training.dense_recipe import dense_config

HEADS = ("retinanet", "mask_rcnn")


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the head, retinanet or mask_rcnn."""
    name = argument or HEADS[0]
    if name not in HEADS:
        raise ValueError(f"configs/digits_detection.py:{name}: give one of {', '.join(HEADS)}.")
    config = dense_config("van_lska_tiny", name, num_classes=10, k=11)
    config.model.dims = (32, 64, 128, 160)
    config.model.depths = (1, 1, 2, 1)
    config.model.ffn_ratios = (4, 4, 4, 4)
    head = config.model.head
    if name == "retinanet":
        head.pyramid_channels = 64
        head.tower_depth = 2
        head.candidates = 200
    else:
        head.pyramid_channels = 48
        head.hidden_channels = 128
        # Eight objects an image: at 14 x 14 cells each, masks would take up most of a step.
        head.mask_depth = 1
        head.train_candidates = head.test_candidates = 100
        head.proposals = 50
        head.samples = 32
    head.max_detections = 20

    config.data.source = "digit_scenes"
    config.data.eval_split = "test"
    config.data.image_size = 128
    config.data.long_side = 128
    config.data.hflip_prob = 0.0  # a mirrored digit is none
    config.detection.canvas = (128, 128)
    config.detection.max_objects = 10

    # Small batches: in minutes on two cores the number of steps counts. So does Muon: AdamW alone
    # needs a thousand steps before it tells one digit from another.
    config.optimizer.learning_rate = 2e-3
    config.optimizer.muon_learning_rate = 0.02
    config.optimizer.clip_norm = 1.0
    config.optimizer.epochs = 6 if name == "retinanet" else 4
    config.optimizer.warmup_epochs = 1
    config.optimizer.cooldown_epochs = 0
    config.optimizer.schedule_by = "step"

    config.training.batch_size = 8
    config.training.eval_batch_size = 32
    config.training.eval_every_epochs = (config.optimizer.epochs + 1) // 2
    # The rate falls to nothing, so that an average over 50 steps is all that is left to do.
    config.training.ema_decay = 0.98
    config.training.ema_warmup = True
    config.training.log_every_steps = 50
    return config
