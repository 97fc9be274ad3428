"""The papers' recipes for dense prediction: their values, and the networks that they are of."""

import math
import runpy
from pathlib import Path

import pytest

from lska_jax.models.build import array_shapes, config_of
from lska_jax.training.config_check import check_config

CONFIGS = Path(__file__).parents[2] / "configs"
# Parameters at 80 classes, measured on the reference with LSKA. LKA has those of its backbone more.
COUNTS = {
    "retinanet_coco": {"tiny": 13_309_268, "small": 23_469_748, "base": 36_029_748},
    "mask_rcnn_coco": {"tiny": 23_808_336, "small": 33_387_184, "base": 45_947_184},
}
MORE_OF_LKA = {"tiny": 76_800, "small": 129_024, "base": 285_696}


def load(name, argument=""):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](argument)


@pytest.mark.parametrize("name", COUNTS)
def test_detectors_are_trained_on_coco_as_the_papers_trained_them(name):
    config = load(name, "van_lka_base")
    check_config(config)
    optimizer, training = config.optimizer, config.training
    assert config.model.name == "van_lka_base" and config.model.drop_path_rate == 0.1
    assert config.model.layer_norm_epsilon == 1e-5 and config.model.num_classes == 80
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.decay) == (1e-4, 0.05, "all")
    assert (optimizer.schedule, optimizer.epochs, optimizer.drop_epochs) == ("drops", 12, (8, 11))
    assert (optimizer.warmup_steps, optimizer.warmup_learning_rate) == (1000, 1e-7)
    assert optimizer.clip_norm == 0 and training.batch_size == 16
    assert config.detection.canvas == (800, 1344)
    assert (config.data.image_size, config.data.long_side, config.data.hflip_prob) == (
        *(800, 1333),
        0.5,
    )


@pytest.mark.parametrize(
    ("name", "argument", "rate"),
    [
        ("semantic_fpn_ade20k", "van_lska_base", 0.1),
        ("semantic_fpn_ade20k", "van_lka_small", 0.2),
        ("semantic_fpn_ade20k", "van_lka_base", 0.2),
        ("upernet_ade20k", "van_lska_small", 0.1),
        ("upernet_ade20k", "van_lka_base", 0.1),
    ],
)
def test_segmentors_drop_as_many_paths_as_the_papers_did(name, argument, rate):
    assert load(name, argument).model.drop_path_rate == rate


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("attention", ["lska", "lka"])
@pytest.mark.parametrize("size", MORE_OF_LKA)
def test_detectors_of_the_recipes_have_the_references_parameters(name, attention, size):
    config = load(name, f"van_{attention}_{size}")
    shapes = array_shapes(config_of(config.model.to_dict()))
    counted = [math.prod(s) for path, s in shapes.items() if not path.endswith(("/mean", "/var"))]
    more = MORE_OF_LKA[size] if attention == "lka" else 0
    assert sum(counted) == COUNTS[name][size] + more
