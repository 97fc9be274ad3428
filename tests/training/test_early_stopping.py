"""Runs that end where the deciding metric gets no better."""

import json
import math

import pytest
from small_runs import STEPS_PER_EPOCH, small_config

from lska_jax.training.checkpoint.load_tree import load_tree
from lska_jax.training.early_stopping import Patience
from lska_jax.training.loop import train
from lska_jax.training.run_record import record_problems


def test_evaluations_in_a_row_that_are_no_better_are_counted():
    patience = Patience(3)
    for score, waited in ((0.5, 0), (0.5, 1), (math.nan, 2), (0.6, 0), (0.1, 1), (0.6, 2)):
        patience.note(score)
        assert patience.record()["waited"] == waited
        assert not patience.is_over
    patience.note(0.59)
    assert patience.is_over


def test_the_count_goes_on_where_a_checkpoint_left_it():
    patience = Patience(2)
    for score in (0.5, 0.4):
        patience.note(score)
    kept = json.loads(json.dumps(patience.record()))
    assert record_problems({"patience": kept}) == []
    again = Patience(2, kept)
    again.note(0.5)
    assert again.is_over
    assert not Patience(0, again.record()).is_over


@pytest.mark.parametrize("kept", [{"best": "0.5", "waited": 1}, {"best": 0.5, "waited": -1}, 3])
def test_a_count_of_another_type_is_damage(kept):
    assert record_problems({"patience": kept})


@pytest.mark.slow
def test_a_run_that_stands_still_ends_early_and_stays_ended(tmp_path, capsys):
    config = small_config()
    config.optimizer.update({"epochs": 6, "learning_rate": 0.0, "min_learning_rate": 0.0})
    config.optimizer.warmup_learning_rate = 0.0
    # BatchNorm's statistics would change the metrics.
    config.training.freeze_statistics = ("*",)
    config.training.ema_decay = 0.0
    config.training.patience = 2
    first = train(config, workdir=tmp_path)
    assert "Stopped early: no evaluation of the last 2 was better" in capsys.readouterr().out
    saved = load_tree(tmp_path, step="latest")
    assert saved.step == 3 * STEPS_PER_EPOCH
    assert saved.metadata["patience"]["waited"] == 2
    assert train(config, workdir=tmp_path) == first
    assert "is complete" in capsys.readouterr().out
    config.training.patience = 3
    train(config, workdir=tmp_path)
    assert load_tree(tmp_path, step="latest").step == 4 * STEPS_PER_EPOCH
