"""What the trainer promises holds for a task that it has never heard of."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_runs import ROOT, STEPS, STEPS_PER_EPOCH
from toy_task import BrightnessCentre, CentreReader, register_toy, toy_config

from lska_jax import create_model
from lska_jax.data.augment import TrainTransform
from lska_jax.data.loader import train_batches
from lska_jax.running import parallel
from lska_jax.running.stop_signals import StopSignals
from lska_jax.tasks.table import task_names
from lska_jax.training import run as building
from lska_jax.training.checkpoint.checkpointer import load_tree
from lska_jax.training.config_check import check_config
from lska_jax.training.evaluate_only import evaluate_checkpoint
from lska_jax.training.loop import train
from lska_jax.training.publish import publish
from lska_jax.training.state import host_state, place_state
from lska_jax.training.trainer import Interrupted
from lska_jax.weights.pretrained import arrays_of
from tests.faults.runs import records, what_was_lost

pytestmark = pytest.mark.usefixtures("two_devices")

TIMEOUT_SECONDS = 300


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict[str, float]]:
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, train(toy_config(), workdir=workdir)


def test_its_config_is_checked_and_an_unknown_name_is_refused_with_those_there_are():
    config = toy_config()
    check_config(config)
    assert "brightness_centre" in task_names()
    config.task = "brightness"
    with pytest.raises(ValueError, match="'brightness' is unknown; allowed: classification, .*cen"):
        check_config(config)


def test_it_learns_what_no_class_label_says(finished):
    workdir, evaluation = finished
    distances = [line["eval/distance"] for line in records(workdir) if "eval/distance" in line]
    assert len(distances) == 2
    assert distances[-1] < distances[0]
    assert evaluation.keys() == {"eval/distance", "seen/distance"}
    # One line for the two coordinates' scale: an image is one unit wide.
    assert evaluation["eval/distance"] < 1


def test_broken_examples_are_masked_though_their_fields_are_infinite(finished):
    workdir, _ = finished
    log = (workdir / "log.txt").read_text()
    assert "Broken image left out: digits#" in log
    assert "not finite" not in log


def test_each_evaluator_runs_when_it_is_due_and_the_first_decides_which_step_is_best(finished):
    workdir, _ = finished
    evaluated = [
        (line["step"], name.split("/")[0])
        for line in records(workdir)
        for name in line
        if name.endswith("/distance")
    ]
    assert evaluated == [(STEPS_PER_EPOCH, "eval"), (STEPS, "eval"), (STEPS, "seen")]
    best = load_tree(workdir, step="best")
    metric = json.loads((best.folder / "manifest.json").read_text())["metric"]
    assert metric == -best.metadata["evaluation"]["eval/distance"]
    assert best.step == STEPS


def test_each_evaluation_leaves_its_predictions_and_pictures(finished):
    workdir, _ = finished
    for evaluator, split in (("eval", "test"), ("seen", "train")):
        kept = workdir / "predictions" / evaluator / "source.txt"
        assert kept.read_text() == f"digits/{split}"
        assert (workdir / "pictures" / f"{evaluator}_predictions.png").is_file()


def test_a_checkpoint_is_evaluated_with_the_numbers_that_training_reported(finished, tmp_path):
    workdir, evaluation = finished
    assert evaluate_checkpoint(toy_config(), workdir=tmp_path, checkpoint=workdir) == evaluation


def test_a_process_killed_with_sigkill_is_resumed_bit_for_bit(finished, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "toy_task.py"), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=2"),
        },
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    # Beyond the first epoch, amid an open record.
    while not (tmp_path / "checkpoints" / str(STEPS_PER_EPOCH)).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    train(toy_config(), workdir=tmp_path)
    assert "Resuming at step" in (tmp_path / "log.txt").read_text()
    assert what_was_lost(tmp_path, finished[0]) == []


def test_its_model_is_published_and_loaded(finished, tmp_path):
    workdir, evaluation = finished
    facts = publish(workdir, tmp_path / "folder", report=lambda line: None)
    assert facts.class_names is None
    assert facts.source["eval/distance"] == evaluation["eval/distance"]
    loaded = arrays_of(create_model(pretrained=tmp_path / "folder"))
    trained = load_tree(workdir, step="best").tree["ema"]["params"]
    assert loaded.keys() == trained.keys()
    assert all(np.array_equal(loaded[path], trained[path]) for path in loaded)


class AskedIn(StopSignals):
    """A request that comes in the evaluation of a name, behind its first batch."""

    def __init__(self, workdir: Path, evaluator: str):
        super().__init__()
        self._log, self._evaluator, self._looks = workdir / "log.txt", evaluator, 0

    @property
    def is_requested(self) -> bool:
        text = self._log.read_text() if self._log.exists() else ""
        is_there = text.count("evaluation after step") == 2 and "evaluation seen" not in text
        self._looks += is_there
        return is_there and self._looks > 2


def test_a_run_interrupted_in_its_second_evaluator_does_all_of_them_again(finished, tmp_path):
    with pytest.raises(Interrupted, match=f"after step {STEPS}, which is saved"):
        train(toy_config(), workdir=tmp_path, signals=AskedIn(tmp_path, "seen"))
    assert [line["step"] for line in records(tmp_path) if "eval/distance" in line] == [
        STEPS_PER_EPOCH,
        STEPS,
    ]
    assert train(toy_config(), workdir=tmp_path) == finished[1]
    assert what_was_lost(tmp_path, finished[0]) == []


@pytest.mark.parametrize("fsdp", [1, 2])
def test_sharded_steps_are_those_of_one_device(fsdp):
    config = toy_config()
    config.training.update({"batch_size": 16, "fsdp": fsdp, "gradient_accumulation": 2})
    config.optimizer.epsilon = 1e-2
    task = BrightnessCentre(config)
    source = task.open_split(source="digits", split="train")
    losses = []
    for devices in (1, 4):
        mesh = parallel.make_mesh(fsdp=min(fsdp, devices), devices=jax.devices()[:devices])
        config.training.fsdp = min(fsdp, devices)
        run = building.build_run(config, num_train_examples=1442, mesh=mesh)
        step = building.train_program(run).compile()
        state = host_state(building.build_model(config), run.optimizer, use_ema=True)
        state, sharding = place_state(state, mesh), parallel.batch_sharding(mesh)
        for batch in task.train_batches(source, global_batch_size=16, seed=0, stop_step=3):
            del batch["index"]
            placed = parallel.to_global(batch, sharding, global_batch_size=16)
            state, metrics = step(state, placed)
            losses.append(float(metrics["loss"]))
    # float32 sums over the batch and over channels run in another order on each layout.
    np.testing.assert_allclose(losses[:3], losses[3:], rtol=2e-5)


class TwoSizes(BrightnessCentre):
    """Images of 8 pixels at even steps and of 10 at odd ones."""

    def _readers(self) -> list[CentreReader]:
        sizes = (8, 10)
        return [CentreReader(TrainTransform(image_size=s, channels=1, crop="none")) for s in sizes]

    def train_shapes(self):
        return [reader.fields for reader in self._readers()]

    def train_batches(self, source, *, start_step=0, **loading):
        streams = [
            train_batches(source, reader, start_step=start_step, **loading)
            for reader in self._readers()
        ]
        number = start_step
        while True:
            pair = [next(stream, None) for stream in streams]
            if pair[0] is None:
                return
            yield pair[number % 2]
            number += 1


def test_batches_of_two_shapes_train_with_one_program_each(tmp_path):
    register_toy(TwoSizes)
    config = toy_config()
    config.optimizer.update({"epochs": 1, "warmup_epochs": 0})
    config.evaluators.seen.every_epochs = 1
    compiled: list[str] = []

    def listen(event: str, seconds: float, **details: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(str(details["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        evaluation = train(config, workdir=tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
        register_toy()
    assert compiled.count("jit(train_step)") == 2
    assert compiled.count("jit(eval_step)") == 1
    assert evaluation["eval/distance"] < 1
