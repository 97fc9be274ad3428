"""The run that tests of segmentation share: a network of two blocks on scenes of digits."""

import runpy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from PIL import Image
from small_runs import ROOT

from lska_jax.data.digit_scenes import DigitSceneMaps
from lska_jax.models.build import config_of
from lska_jax.models.table import section_of

SMALL = {"dims": (4, 6), "depths": (1, 1), "ffn_ratios": (2, 2), "k": 11}
SMALL_HEAD = {"name": "semantic_fpn", "pyramid_channels": 4, "channels": 4}


def small_segmentor(**fields: Any) -> Any:
    """Return the config of the network."""
    return config_of(section_of("van_lska_tiny", head=SMALL_HEAD, **{**SMALL, **fields}))


def write_pairs(root: Path, split: str, count: int) -> None:
    """Write drawn scenes as pairs of files."""
    source = DigitSceneMaps(split, size=(32, 32))
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True)
    for index in range(count):
        example = source[index]
        Image.fromarray(example.image).save(root / "images" / split / f"{index:03}.png")
        Image.fromarray(example.label_map).save(root / "labels" / split / f"{index:03}.png")
    (root / "classes.txt").write_text("\n".join(source.class_names) + "\n")


def small_segmentation(root: Path) -> ConfigDict:
    """Return the config of the run; whoever changes nothing in it compiles nothing new.

    Args:
      root: folder of pairs with the splits train and test.
    """
    path = ROOT / "configs" / "digits_segmentation.py"
    config = runpy.run_path(str(path))["get_config"]()
    config.model.update(SMALL)
    config.model.head.update({"pyramid_channels": 4, "channels": 4})
    config.data.source = f"maps:{root}"
    config.data.update({"image_size": 32, "long_side": 32, "num_workers": 0})
    config.data.max_broken_fraction = 0.1
    for name in ("crop_size", "eval_canvas", "label_canvas"):
        config.segmentation[name] = (32, 32)
    config.optimizer.update({"epochs": 2, "warmup_epochs": 1, "muon_learning_rate": 0.0})
    config.training.update({"batch_size": 8, "eval_batch_size": 8, "eval_every_epochs": 1})
    config.training.update({"log_every_steps": 2, "writers": ("jsonl",)})
    config.training.update({"ema_decay": 0.98, "ema_warmup": True})
    return config
