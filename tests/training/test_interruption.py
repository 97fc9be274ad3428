"""A run interrupted again and again, anywhere, ends as one that was not."""

import itertools
import runpy
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from lska_jax.running.stop_signals import StopSignals
from lska_jax.training.checkpoint.checkpointer import load_tree
from lska_jax.training.evaluate_only import evaluate_checkpoint
from lska_jax.training.loop import Interrupted, train
from tests.faults.runs import what_was_lost

ROOT = Path(__file__).parents[2]
STEPS = 2 * (1442 // 240)


def tiny_config() -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / "digits.py"))["get_config"]("11")
    config.model.update({"dims": (8,), "depths": (1,), "ffn_ratios": (2,)})
    config.data.num_workers = 0
    config.optimizer.update({"epochs": 2, "warmup_epochs": 1})
    config.training.update({"batch_size": 240, "eval_batch_size": 120, "eval_every_epochs": 1})
    # Records of five steps are open at most interruptions, and five is no divisor of an epoch.
    config.training.update({"log_every_steps": 5, "checkpoint_every_steps": 4})
    return config


class AskedAfter(StopSignals):
    """A request that comes when the run has looked for it so often."""

    def __init__(self, looks: int):
        super().__init__()
        self._looks = looks

    @property
    def is_requested(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    train(tiny_config(), workdir=workdir)
    return workdir


# One look before a batch is waited for, one after each step and evaluation batch: uneven numbers
# stop in waits, even ones after steps, and an evaluation of three batches has six looks.
@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, list[int]]:
    workdir, steps = tmp_path_factory.mktemp("interrupted"), []
    for looks in itertools.cycle([9, 6, 13]):
        try:
            train(tiny_config(), workdir=workdir, signals=AskedAfter(looks))
            return workdir, steps
        except Interrupted:
            steps.append(load_tree(workdir).step)


def test_interrupted_at_many_points_equals_uninterrupted_in_every_bit_and_line(
    uninterrupted, interrupted
):
    workdir, steps = interrupted
    assert what_was_lost(workdir, uninterrupted) == []
    assert len(steps) >= 3


def test_every_interruption_went_on_where_the_one_before_had_saved(interrupted):
    workdir, steps = interrupted
    log = (workdir / "log.txt").read_text()
    for step in steps:
        assert f"Resuming at step {step} of {STEPS}." in log


def test_an_evaluation_was_interrupted_and_came_again(interrupted):
    workdir, _ = interrupted
    log = (workdir / "log.txt").read_text()
    evaluations = [
        line for line in (workdir / "metrics.jsonl").read_text().splitlines() if "eval/" in line
    ]
    assert log.count(" evaluating: ") > len(evaluations) == 2


def test_an_interrupted_evaluation_alone_writes_nothing(uninterrupted, tmp_path):
    with pytest.raises(Interrupted, match="no evaluation was written"):
        evaluate_checkpoint(
            tiny_config(), workdir=tmp_path, checkpoint=uninterrupted, signals=AskedAfter(2)
        )
    assert not (tmp_path / "evaluation.json").exists()
