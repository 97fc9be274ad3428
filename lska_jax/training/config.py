"""The configuration of a run: every key with its default.

A config file in ``configs/`` starts from ``base_config`` and changes what its experiment changes;
``lska_jax.training.config_check`` checks the whole.
"""

import difflib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from lska_jax.data.limits import MAX_PIXELS
from lska_jax.models.table import fields_of, section_of


def base_config() -> ConfigDict:
    """Return the paper's recipe for ImageNet-1K, complete and unlocked, for a config to change."""
    config = ConfigDict()
    config.task = "classification"

    config.model = model_section("van_lska_tiny", drop_path_rate=0.1)

    config.data = data = ConfigDict()
    data.source = "tfds:imagenet2012"  # digits, drawings, folder:PATH, csv:PATH or tfds:NAME
    data.data_dir = ""  # where TFDS keeps its sets; "" is TFDS's default
    data.train_split = "train"
    data.eval_split = "validation"
    data.image_size = 224
    data.mean = (0.5, 0.5, 0.5)  # for pixels in [0, 1]; the reference's, not ImageNet's
    data.std = (0.5, 0.5, 0.5)
    data.crop_pct = 0.9  # evaluation: image_size over the resized short side
    data.crop_mode = "center"  # evaluation: center; squash, which distorts; whole, for dense tasks
    data.long_side = 0  # of "whole": the most that the longer side may have
    data.interpolation = "bicubic"  # evaluation
    data.views = "one"  # evaluation: one, flip (the mirror image too) or ten (AlexNet's crops)
    data.crop = "random_resized"  # training: random_resized, padded or none
    data.crop_scale = (0.08, 1.0)
    data.crop_ratio = (3 / 4, 4 / 3)
    data.pad = 0  # pixels on each side, for crop "padded"
    data.hflip_prob = 0.5
    data.rand_augment = "rand-m9-mstd0.5-inc1"  # "" turns it off
    data.train_interpolation = "random"  # bilinear, bicubic or random
    data.scaled_decoding = False  # training: large JPEG files at 1/2, 1/4 or 1/8 of their sides
    data.erase_prob = 0.25
    data.mixup_alpha = 0.8
    data.cutmix_alpha = 1.0
    data.switch_prob = 0.5  # of CutMix where Mixup is on too
    data.num_workers = -1  # decoding processes; -1: by the number of cores; 0: threads
    data.sampling = "uniform"  # uniform, or balanced: every class is drawn as often
    data.multi_label = False  # whether an image has any number of labels: csv:PATH with "a|b"
    data.max_broken_fraction = 0.01  # of an epoch's images; beyond it the run stops
    data.max_image_pixels = MAX_PIXELS  # 175 million; more is broken, whatever the format

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-3  # not scaled by the batch size
    optimizer.min_learning_rate = 1e-6
    optimizer.warmup_learning_rate = 1e-6
    optimizer.epochs = 300  # of the cosine, warm-up included
    optimizer.warmup_epochs = 5
    optimizer.cooldown_epochs = 10  # at the minimum, after the cosine
    optimizer.schedule_by = "epoch"  # of the cosine: epoch (the reference) or step
    optimizer.schedule = "cosine"  # cosine, poly or drops
    optimizer.power = 1.0  # of poly: learning_rate (1 - step / steps of the run)^power
    optimizer.drop_epochs = ()  # of drops: the rate is a tenth from the end of each of them on
    optimizer.warmup_steps = 0  # of poly and drops, in place of warmup_epochs
    optimizer.steps = 0  # of the run; 0 leaves it to the epochs
    optimizer.weight_decay = 0.05
    optimizer.decay = "matrices"  # what decays: matrices, all, or not_backbone_norms
    # Of Muon at the top, for matrices between hidden channels; 0: AdamW for all.
    optimizer.muon_learning_rate = 0.0
    optimizer.beta1 = 0.9
    optimizer.beta2 = 0.999
    optimizer.epsilon = 1e-8
    optimizer.clip_norm = 0.0  # 0 does not clip
    optimizer.layer_decay = 1.0  # of the rate from each layer to the one in front of it
    optimizer.head_learning_rate = 0.0  # at the top of the cosine; 0: that of the others

    config.training = training = ConfigDict()
    training.batch_size = 512  # of a step, over all devices
    training.eval_batch_size = 512
    training.gradient_accumulation = 1  # microbatches that a batch is split into
    training.seed = 0
    training.label_smoothing = 0.1
    training.loss = "cross_entropy"  # or focal
    training.focal_gamma = 2.0  # of the focal loss
    training.class_weights = ""  # in the loss: "balanced", or numbers with commas; "" weighs none
    training.ema_decay = 0.0  # 0.9998 when on; 0 keeps no average
    training.ema_warmup = False  # a smaller decay in the first steps, for runs of few
    training.fsdp = 1  # devices that share one copy of the parameters
    training.eval_every_epochs = 1
    training.checkpoint_every_steps = 0  # besides the one after each evaluation; 0: none
    training.keep_latest = 2
    training.keep_best = 1
    training.log_every_steps = 50
    training.writers = ("jsonl", "tensorboard")
    training.max_bad_steps = 20  # non-finite steps in a row after which the run stops
    training.save_seconds = 600  # a checkpoint that takes longer has failed
    training.stall_seconds = 300  # without a batch or a step, after which it is reported; 0: never
    training.finetune_from = ""  # run, checkpoint or model folder to start the parameters from
    training.teacher = ""  # a trained model, by any of its places, whose answers are learned too
    training.distillation = "soft"  # soft or hard
    training.distillation_weight = 0.5  # of the teacher's part of the loss
    training.distillation_temperature = 2.0  # of the soft form
    # What is not trained: "backbone", "stem", "stage1", or paths such as "stages/0/blocks/*".
    training.freeze = ()
    training.freeze_statistics = ()  # of which BatchNorms, by the same names
    training.unfreeze_every_epochs = 0  # one stage more, the last first; 0: all from the beginning
    training.patience = 0  # evaluations without a better one after which the run ends; 0: never

    # Evaluations besides that of data.eval_split, by name: {"seen": {"split": "train[:10%]"}};
    # keys and defaults are those of lska_jax.training.evaluators.
    config.evaluators = ConfigDict()
    return config


def model_section(name: str, **fields: Any) -> ConfigDict:
    """Return a run's ``config.model``: a name and the fields of its family, with their defaults.

    () and None leave to the name what it decides, as ``dims`` of a VAN.

    Args:
      name: one of ``list_models()``.
      **fields: values that replace the defaults; ``head``, the name or the section of one, puts it
        on the model.

    Raises:
      ValueError: an unknown name, or a field that the family does not have.
    """
    section = section_of(name, **fields)
    family, _ = fields_of(section)
    # A placeholder keeps the type of what a command line may put in place of None.
    return ConfigDict(
        {
            field: placeholder(family.type_of(field)) if value is None else value
            for field, value in section.items()
        }
    )


def unknown_key_message(config: ConfigDict, key: str) -> str:
    """Say that a key does not exist, which come close, and which its group has.

    Args:
      config: the config that was loaded.
      key: dotted, without the leading "config.".
    """
    allowed = list(leaf_keys(config))
    close = difflib.get_close_matches(key, allowed, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    group = key.split(".")[0]
    siblings = [name for name in allowed if name.startswith(f"{group}.")]
    listed = ", ".join(siblings or config.keys())
    return f"Unknown config key {key!r}.{hint} Allowed: {listed}."


def has_key(config: ConfigDict, key: str) -> bool:
    """Tell whether a dotted key names a value of the config."""
    return key in leaf_keys(config)


def describe_type(config: ConfigDict, key: str) -> str:
    """Return which values a dotted key takes, with its present value as an example."""
    group, _, name = key.rpartition(".")
    parent = config[group] if group else config
    return f"{parent.get_type(name).__name__}, as in {key}={parent[name]!r}"


def leaf_keys(config: ConfigDict, prefix: str = "") -> Sequence[str]:
    """Return the dotted keys of a config's values."""
    keys: list[str] = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            keys += leaf_keys(value, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
