"""RetinaNet on COCO, with VAN-LSKA or VAN-LKA tiny, small or base as backbone.

    python train.py --config configs/retinanet_coco.py:van_lska_small \
        --config.data.source=coco:PATH --config.training.finetune_from=CLASSIFIER

PATH holds annotations/instances_train2017.json and instances_val2017.json beside train2017/ and
val2017/; CLASSIFIER is a model folder of the same backbone. The recipe is that of the papers' code,
1x: 12 epochs of 16 images a step, two on each of eight GPUs. Losses are divided by counts over all
of them, and BatchNorm takes the whole batch, over all devices.

Hardware: a TPU slice or GPUs. Result: not yet run.
"""

from ml_collections import ConfigDict

from lska_jax.training.dense_recipe import coco_config


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; the argument is the name of a model, van_lska_tiny by default."""
    return coco_config(argument or "van_lska_tiny", "retinanet")
