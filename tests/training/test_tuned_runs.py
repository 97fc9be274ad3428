"""Runs with every tool of fine-tuning on: they resume to the bit, on any number of devices."""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_runs import STEPS, small_config

from lska_jax.running import parallel
from lska_jax.training.checkpoint.load_tree import load_tree
from lska_jax.training.config_check import check_config
from lska_jax.training.loop import train
from lska_jax.training.trainer import Interrupted, Trainer

pytestmark = pytest.mark.slow


def tuned_config() -> ConfigDict:
    config = small_config()
    config.model.update({"dims": (8, 8), "depths": (1, 1), "ffn_ratios": (2, 2)})
    config.data.update({"sampling": "balanced", "views": "flip"})
    config.optimizer.update({"layer_decay": 0.75, "head_learning_rate": 1e-2, "clip_norm": 1.0})
    config.optimizer.muon_learning_rate = 0.02
    config.training.update({"freeze": ("stem",), "freeze_statistics": ("stem",), "loss": "focal"})
    config.training.update({"unfreeze_every_epochs": 1, "patience": 5, "ema_decay": 0.9})
    config.training.update({"class_weights": "balanced"})
    check_config(config)
    return config


def test_a_tuned_run_resumes_to_the_bit(tmp_path, monkeypatch):
    whole = train(tuned_config(), workdir=tmp_path / "whole")
    save = Trainer._save

    def save_and_stop(self, step, *arguments, **options):
        save(self, step, *arguments, **options)
        # Between two evaluations, and after the second stage has started.
        if step == 2 * STEPS // 3:
            raise Interrupted("here")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", save_and_stop)
        with pytest.raises(Interrupted):
            train(tuned_config(), workdir=tmp_path / "parts")
    assert train(tuned_config(), workdir=tmp_path / "parts") == whole
    one, other = (load_tree(tmp_path / name, step="latest", skip=()) for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, one.tree, other.tree)
    assert one.metadata == other.metadata


def test_a_tuned_run_is_the_same_on_sharded_devices(tmp_path, monkeypatch):
    few = functools.partial(parallel.make_mesh, devices=jax.devices()[:1])
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "make_mesh", few)
        alone = train(tuned_config(), workdir=tmp_path / "alone")
    config = tuned_config()
    config.training.fsdp = 2
    assert train(config, workdir=tmp_path / "sharded") == pytest.approx(alone, rel=1e-3)
