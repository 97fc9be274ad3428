import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from lska_jax.data import digit_scenes
from lska_jax.tasks.detection import Detection
from lska_jax.training.config_check import check_config
from lska_jax.training.loop import train

ROOT = Path(__file__).parents[2]


def digits_config(head="retinanet"):
    """Return the config of the digits in small: scenes of 32 x 32 pixels, a network to match."""
    config = runpy.run_path(str(ROOT / "configs" / "digits_detection.py"))["get_config"](head)
    config.model.update({"dims": (4, 4, 4, 4), "depths": (1, 1, 1, 1), "stem_stride": 2})
    config.model.ffn_ratios = (1, 1, 1, 1)
    config.model.head.pyramid_channels = 8
    config.data.source = "digit_scenes:32x32"
    config.data.update({"image_size": 32, "long_side": 32, "num_workers": 0})
    config.detection.canvas = (32, 32)
    config.optimizer.update({"epochs": 1, "warmup_epochs": 0, "learning_rate": 5e-3})
    config.optimizer.muon_learning_rate = 0.0
    config.training.update({"batch_size": 8, "eval_batch_size": 8, "log_every_steps": 4})
    return config


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn"])
def test_the_configs_for_digits_are_right(head):
    get_config = runpy.run_path(str(ROOT / "configs" / "digits_detection.py"))["get_config"]
    check_config(get_config(head))


def test_another_head_is_refused_with_those_there_are():
    get_config = runpy.run_path(str(ROOT / "configs" / "digits_detection.py"))["get_config"]
    with pytest.raises(ValueError, match="yolo: give one of retinanet, mask_rcnn"):
        get_config("yolo")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("canvas", (30, 32), r"canvas=\(30, 32\) must be \(height, width\), both multiples of 8"),
        ("canvas", (32, 24), r"canvas=\(32, 24\) is smaller than images of data.image_size=32"),
        ("max_objects", 0, "detection.max_objects=0 must be at least 1"),
        ("jitter", (2.0, 1.0), r"jitter=\(2.0, 1.0\) must be \(low, high\)"),
    ],
)
def test_values_that_detection_cannot_work_with_are_named(key, value, message):
    config = digits_config()
    config.detection[key] = value
    with pytest.raises(ValueError, match=message):
        check_config(config)


def test_weights_of_classes_are_refused():
    config = digits_config()
    config.training.class_weights = "1,2"
    with pytest.raises(ValueError, match="detectors weigh no classes"):
        check_config(config)


def test_a_model_without_a_detectors_head_is_refused():
    config = digits_config()
    config.model.head = {"name": "semantic_fpn", "pyramid_channels": 8, "channels": 8}
    with pytest.raises(ValueError, match="needs a model with one of the heads"):
        check_config(config)


def test_more_objects_than_rows_are_refused_before_training():
    config = digits_config()
    config.detection.max_objects = 3
    with pytest.raises(ValueError, match="9 objects, and detection.max_objects=3 leaves no room"):
        Detection(config).open_split(source=config.data.source, split="train")


def test_wide_and_upright_images_have_a_program_each():
    config = digits_config()
    assert len(Detection(config).train_shapes()) == 1
    config.detection.canvas = (32, 64)
    wide, upright = Detection(config).train_shapes()
    assert wide["image"].shape == (32, 64, 3)
    assert upright["image"].shape == (64, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn"])
def test_a_run_is_judged_by_cocos_numbers_and_leaves_its_results(head, tmp_path, monkeypatch):
    for split, count in (("train", 128), ("test", 8)):
        monkeypatch.setitem(digit_scenes._NUM_SCENES, split, count)
    evaluation = train(digits_config(head), workdir=tmp_path)
    assert {"eval/box_AP", "eval/box_AP50"} <= evaluation.keys()
    assert ("eval/mask_AP" in evaluation) == (head == "mask_rcnn")
    assert 0 <= evaluation["eval/box_AP"] <= 1
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    results = json.loads((tmp_path / "predictions" / "eval" / "bbox.json").read_text())
    assert all({"image_id", "category_id", "score", "bbox"} <= set(one) for one in results)
