"""A run interrupted again and again, anywhere, ends as one that was not."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict
from small_runs import STEPS, small_config

from lska_jax.running.stop_signals import StopSignals
from lska_jax.training.checkpoint.checkpointer import load_tree
from lska_jax.training.evaluate_only import evaluate_checkpoint
from lska_jax.training.loop import train
from lska_jax.training.program import Program
from lska_jax.training.trainer import Interrupted
from tests.faults.runs import what_was_lost

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_devices", "compiled_once")]


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """Compile the steps once for all starts: their configs say the same."""
    known: dict[str, jax.stages.Compiled] = {}
    compile_anew = Program.compile

    def compile_once(program: Program) -> jax.stages.Compiled:
        shapes = str(program.arguments)
        if shapes not in known:
            known[shapes] = compile_anew(program)
        return known[shapes]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "compile", compile_once)
        yield


def config_before_tasks() -> ConfigDict:
    """Return the config as it was saved before it had a task and evaluators."""
    config = small_config()
    del config.task
    del config.evaluators
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
    train(small_config(), workdir=workdir)
    return workdir


# One look before a batch is waited for, one after each step and evaluation batch: uneven numbers
# stop in waits, even ones after steps, and an evaluation of three batches has six looks.
@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, list[int]]:
    workdir, steps = tmp_path_factory.mktemp("interrupted"), []
    for number, looks in enumerate(itertools.chain([9, 6, 13], itertools.repeat(1000))):
        # The first part is as a run was before configs had a task and evaluators.
        config = small_config() if number else config_before_tasks()
        try:
            train(config, workdir=workdir, signals=AskedAfter(looks))
            return workdir, steps
        except Interrupted:
            steps.append(load_tree(workdir).step)


def test_interrupted_at_many_points_equals_uninterrupted_in_every_bit_and_line(
    uninterrupted, interrupted
):
    workdir, steps = interrupted
    assert what_was_lost(workdir, uninterrupted) == []
    assert len(steps) == 3


def test_a_config_that_has_got_new_keys_has_not_changed(interrupted):
    assert "Config changed" not in (interrupted[0] / "log.txt").read_text()


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
            small_config(), workdir=tmp_path, checkpoint=uninterrupted, signals=AskedAfter(2)
        )
    assert not (tmp_path / "evaluation.json").exists()
